//! The clock: every record has a time, and records of several sensors are compared by it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Finding, Topic};

/// 2026-01-01: no machine on which this program runs is older.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);
/// Error of a clock that is kept by NTP over the internet, with room.
const MOST_ERROR: Duration = Duration::from_millis(500);

pub(super) fn finding() -> Finding {
    let topic = Topic::new(
        "clock.synchronized",
        "records carry the time of the machine; a wrong clock makes them useless as evidence",
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    judge(topic, now, kernel())
}

fn judge(topic: Topic, now: Duration, kernel: Result<Kernel, std::io::Error>) -> Finding {
    let remedy = "timedatectl set-ntp true, or apt-get install chrony";
    if now < EARLIEST {
        return topic.failure("the clock is years behind", remedy);
    }
    match kernel {
        Ok(Kernel { synchronized: true, error }) if error <= MOST_ERROR => {
            topic.ok(format!("synchronised, error at most {} ms", error.as_millis()))
        }
        Ok(Kernel { synchronized: true, error }) => {
            topic.warning(format!("synchronised, but the error may be {} ms", error.as_millis()), remedy)
        }
        Ok(_) => topic.warning("nothing keeps the kernel's clock synchronised", remedy),
        Err(error) => topic.skipped(format!("the kernel does not say: {error}")),
    }
}

struct Kernel {
    synchronized: bool,
    error: Duration,
}

/// Asks adjtimex(2), which needs no privilege.
#[allow(unsafe_code)]
fn kernel() -> Result<Kernel, std::io::Error> {
    // SAFETY: a structure of integers; all of it zero is a question that changes nothing.
    let mut answer: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer names a live structure of that type.
    let state = unsafe { libc::adjtimex(&raw mut answer) };
    if state < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let synchronized = state != libc::TIME_ERROR && answer.status & libc::STA_UNSYNC == 0;
    let error = Duration::from_micros(u64::try_from(answer.maxerror).unwrap_or(0));
    Ok(Kernel { synchronized, error })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_is_judged_by_its_year_by_who_keeps_it_and_by_its_error() {
        let judged = |now, synchronized, ms| {
            let kernel = Kernel { synchronized, error: Duration::from_millis(ms) };
            judge(Topic::new("clock.synchronized", ""), now, Ok(kernel)).state
        };
        assert_eq!(judged(EARLIEST, true, 20), State::Ok);
        assert_eq!(judged(EARLIEST, true, 501), State::Warning);
        assert_eq!(judged(EARLIEST, false, 20), State::Warning);
        assert_eq!(judged(Duration::from_secs(60), true, 20), State::Failure);
        let unknown = judge(Topic::new("clock.synchronized", ""), EARLIEST, Err(std::io::Error::other("no")));
        assert_eq!(unknown.state, State::Skipped);
    }

    #[test]
    fn the_kernel_answers_without_privileges() {
        assert!(kernel().is_ok());
        assert_ne!(finding().state, super::super::State::Failure);
    }
}
