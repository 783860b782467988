//! Questions on the terminal: one for each thing that flags left open, with a proposal that Enter takes.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use super::answers::{Answers, port_or_range};
use super::detect::Found;
use super::{Error, Options, validate};

/// Number of times that a refused answer is asked for again.
const TRIES: usize = 3;

/// Asks for everything that no flag has said.
pub(super) fn all(
    answers: &mut Answers,
    found: &Found,
    options: &Options,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<(), Error> {
    let mut terminal = Terminal { input, output };
    terminal.say("Enter takes what stands in brackets.\n")?;
    if options.name.is_none() {
        let parse = |text: &str| validate::key("name", text).map(|()| text.to_owned());
        answers.name = terminal.ask("Name of the sensor in its records", "the host name", parse)?;
    }
    if options.ip.is_none() {
        let proposal = answers.ip.to_string();
        let question = "Address to listen on (:: IPv4 and IPv6, 0.0.0.0 IPv4 alone)";
        let parse = |text: &str| {
            let ip = text.parse().map_err(|_| refused("no IP address", text))?;
            validate::key("ip", text).map(|()| ip)
        };
        answers.ip = terminal.ask(question, &proposal, parse)?.unwrap_or(answers.ip);
    }
    if options.port.is_none() {
        let proposal = answers.port.to_string();
        let parse = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(refused("no port from 1 to 65535", text)),
            Ok(port) => validate::port(port, found).and(validate::exclude(&answers.exclude, port)).map(|()| port),
        };
        let question = "Port to listen on; all others are led there";
        answers.port = terminal.ask(question, &proposal, parse)?.unwrap_or(answers.port);
    }
    if options.log_file.is_none() {
        let proposal = answers.log_file.as_deref().unwrap_or(Path::new("-")).display().to_string();
        let question = "Log file (- is standard output)";
        let parse = |text: &str| validate::log_file(Path::new(text)).map(|()| PathBuf::from(text));
        if let Some(path) = terminal.ask(question, &proposal, parse)? {
            answers.log_file = Some(path).filter(|path| path != Path::new("-"));
        }
    }
    if options.user.is_none() {
        let proposal = answers.user.clone().unwrap_or_else(|| "the one that starts the agent".to_owned());
        let question = "User that the agent becomes after its start";
        let parse = |text: &str| validate::user(text).map(|()| text.to_owned());
        answers.user = terminal.ask(question, &proposal, parse)?.or(answers.user.take());
    }
    if options.steering.is_none() {
        let proposal = answers.steering.clone();
        let question = format!("Steering: sk_lookup or redirect ({})", answers.steering_reason);
        let parse = |text: &str| match text {
            "sk_lookup" | "redirect" => validate::steering(text, answers.ip).map(|()| text.to_owned()),
            _ => Err(refused("neither sk_lookup nor redirect", text)),
        };
        if let Some(steering) = terminal.ask(&question, &proposal, parse)? {
            answers.steering = steering;
            answers.steering_reason = "as it was answered".to_owned();
        }
    }
    if options.exclude_ports.is_empty() {
        let known: Vec<_> = answers.ssh.keys().map(u16::to_string).collect();
        let known =
            if known.is_empty() { "none of sshd was found".to_owned() } else { format!("sshd: {}", known.join(", ")) };
        let question = format!("Ports to leave alone, such as 443,8000-8100 ({known})");
        let parse = |text: &str| {
            let ports = text.split(',').map(|text| port_or_range(text.trim())).collect::<Result<Vec<_>, _>>()?;
            validate::exclude(&ports, answers.port).map(|()| ports)
        };
        answers.exclude = terminal.ask(&question, "no others", parse)?.unwrap_or_default();
    }
    Ok(())
}

fn refused(what: &str, text: &str) -> Error {
    Error::Answer(format!("{text:?} is {what}"))
}

struct Terminal<'t> {
    input: &'t mut dyn BufRead,
    output: &'t mut dyn Write,
}

impl Terminal<'_> {
    fn say(&mut self, text: &str) -> Result<(), Error> {
        self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush()).map_err(Error::Ask)
    }

    /// The answer, or none when the proposal was taken.
    fn ask<T>(
        &mut self,
        question: &str,
        proposal: &str,
        parse: impl Fn(&str) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut last = String::new();
        for _ in 0..TRIES {
            self.say(&format!("{question} [{proposal}]: "))?;
            let mut line = String::new();
            if self.input.read_line(&mut line).map_err(Error::Ask)? == 0 {
                return Err(Error::Ask(io::ErrorKind::UnexpectedEof.into()));
            }
            match line.trim() {
                "" => return Ok(None),
                text => match parse(text) {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(reason) => last = reason.to_string(),
                },
            }
            self.say(&format!("{last}\n"))?;
        }
        Err(Error::Answer(last))
    }
}

#[cfg(test)]
mod tests {
    use super::super::answers::tests::found;
    use super::*;

    fn asked(typed: &str, options: &Options) -> (Result<Answers, Error>, String) {
        let found = found();
        let mut answers = Answers::proposed(&found, options).expect("valid");
        let mut shown = Vec::new();
        let result = all(&mut answers, &found, options, &mut typed.as_bytes(), &mut shown).map(|()| answers);
        (result, String::from_utf8(shown).expect("text"))
    }

    #[test]
    fn empty_lines_take_every_proposal() {
        let (answers, shown) = asked("\n\n\n\n\n\n\n", &Options::default());
        assert_eq!(answers.expect("taken"), Answers::proposed(&found(), &Options::default()).expect("valid"));
        assert!(shown.contains("[12346]") && shown.contains("sshd: 22, 2222"), "{shown}");
    }

    #[test]
    fn answers_replace_proposals_and_wrong_ones_are_asked_again() {
        let (answers, shown) =
            asked("s1\nx\n0.0.0.0\n70000\n7\n-\nnobody\nx\nredirect\n80, 90-95\n", &Options::default());
        let answers = answers.expect("answered");
        assert_eq!((answers.name.as_deref(), answers.port, answers.log_file), (Some("s1"), 7, None));
        assert_eq!(answers.steering, "redirect");
        assert_eq!((answers.user.as_deref(), answers.exclude), (Some("nobody"), vec!["80".into(), "\"90-95\"".into()]));
        assert!(shown.contains("\"x\" is no IP address") && shown.contains("\"70000\" is no port"), "{shown}");
    }

    #[test]
    fn answers_that_cannot_hold_are_asked_again_with_the_reason() {
        let (answers, shown) = asked(
            "\u{1b}\ns1\n127.0.0.1\n22\n8050\n-\na;rm\n0\nredirect\nsk_lookup\n8000-8100\n8000-8049\n",
            &Options::default(),
        );
        let answers = answers.expect("answered");
        assert_eq!((answers.port, answers.user.as_deref(), answers.steering.as_str()), (8050, Some("0"), "sk_lookup"));
        assert_eq!(answers.exclude, ["\"8000-8049\""]);
        for reason in
            ["control characters", "by it you come in", "must be a user", "loopback", "itself listens on 8050"]
        {
            assert!(shown.contains(reason), "{reason} is missing in\n{shown}");
        }
    }

    #[test]
    fn what_a_flag_says_is_not_asked() {
        let options = Options { port: Some(7), ..Options::default() };
        assert!(!asked("\n\n\n\n\n\n", &options).1.contains("Port to listen on"));
    }

    #[test]
    fn an_end_and_nothing_but_mistakes_end_it() {
        assert!(matches!(asked("", &Options::default()).0, Err(Error::Ask(_))));
        assert!(matches!(asked("s\nx\ny\nz\n", &Options::default()).0, Err(Error::Answer(_))));
    }
}
