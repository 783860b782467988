//! Takes away what leads connections to the agent, and gives it back: behind rules, the rules themselves; under
//! `sk_lookup`, by a packet filter that drops before it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use spip_tests::{CROWD_V4, Net, RawSyn, SENSOR_V4};

use crate::load;
use crate::tally::Tally;

/// For the agent to say that it is deaf, and that it hears again.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(100);
/// A port that scans of the load ask for.
const PORT: u16 = 2_000;

/// Way in which connections come to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steering {
    /// Rules of iptables.
    Redirect,
    /// The agent's own program in the kernel.
    SkLookup,
}

impl Steering {
    /// Reads the value of the agent's key `steering`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "redirect" => Some(Self::Redirect),
            "sk_lookup" => Some(Self::SkLookup),
            _ => None,
        }
    }

    /// Value of the agent's key `steering`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::SkLookup => "sk_lookup",
        }
    }

    /// Leads connections to the agent.
    pub(crate) fn install(self, net: &Net) {
        if self == Self::Redirect {
            net.redirect();
        }
    }

    fn cut(self, net: &Net) {
        net.sensor.shell(match self {
            Self::Redirect => "for i in iptables ip6tables; do $i -w -t nat -F PREROUTING; done",
            Self::SkLookup => "iptables -w -I INPUT -p tcp --dport 2000 -j DROP",
        });
    }

    fn restore(self, net: &Net) {
        match self {
            Self::Redirect => net.redirect(),
            Self::SkLookup => drop(net.sensor.shell("iptables -w -D INPUT -p tcp --dport 2000 -j DROP")),
        }
    }
}

/// Cuts the agent off until it says so, and lets it hear again until it says that.
///
/// # Errors
/// It does not say it.
pub(crate) fn off(net: &Net, steering: Steering, tally: &Tally) -> Result<(), String> {
    tally.cut();
    steering.cut(net);
    let deaf = send_until(net, Tally::kept_away, tally, |tally| tally.noticed().0);
    steering.restore(net);
    if !deaf {
        return Err(format!("the agent has not said that it is deaf {PATIENCE:?} after it was cut off"));
    }
    if !send_until(net, Tally::scanned, tally, |tally| tally.noticed().1) {
        return Err(format!("the agent has not said that it hears again within {PATIENCE:?}"));
    }
    Ok(())
}

/// Sends a SYN of another source now and then until the agent has said what is waited for; false when it has not.
fn send_until(net: &Net, account: fn(&Tally, u64), tally: &Tally, said: impl Fn(&Tally) -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    let (mut step, mut done) = (0_u32, said(tally));
    while !done && Instant::now() < end {
        step += 1;
        let source = Ipv4Addr::from(CROWD_V4.to_bits() + 30_000 + step % 1_000);
        let mut syn =
            RawSyn::new((source, 30_000 + u16::try_from(step % 20_000).unwrap_or_default()), (SENSOR_V4, PORT));
        syn.sequence = u32::try_from(load::since_epoch().as_micros() & 0xffff_ffff).unwrap_or_default();
        account(tally, 1);
        net.client.send_syns([syn]);
        std::thread::sleep(PAUSE);
        done = said(tally);
    }
    done
}
