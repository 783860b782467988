//! Users whose services keep their ports. A user of this machine that listens on thousands of ports would otherwise take them
//! from the sensor.

use nix::unistd::{Uid, User};

use crate::kernel::listening::Listening;

/// The users whose services are left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Exempt {
    /// Those of all users.
    #[default]
    All,
    /// Those of these users alone, by their numbers.
    Of(Vec<u32>),
}

impl Exempt {
    /// Looks the users up; nothing in `names` means all. Names that are unknown are left out: the start has refused them.
    pub(super) fn of(names: &[String]) -> Self {
        if names.is_empty() { Self::All } else { Self::Of(names.iter().filter_map(|name| number(name)).collect()) }
    }

    /// Reports whether a service keeps its port.
    pub(super) fn has(&self, service: &Listening) -> bool {
        match self {
            Self::All => true,
            Self::Of(users) => users.contains(&service.user),
        }
    }
}

/// Names of `exempt_services_of` that no user of this machine has. Numbers are taken as they are: the user of a container
/// need not be one of the machine.
#[must_use]
pub fn unknown_users(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| number(name).is_none()).cloned().collect()
}

fn number(name: &str) -> Option<u32> {
    match name.parse() {
        Ok(number) => Some(number),
        Err(_) => User::from_name(name).ok().flatten().map(|user| Uid::as_raw(user.uid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_chosen_users_are_exempt_and_everybodys_where_none_is_chosen() {
        let of = |user| Listening { port: 80, ip: std::net::IpAddr::from([0, 0, 0, 0]), inode: 1, user };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(Exempt::of(&[]).has(&of(1000)));
        let exempt = Exempt::of(&names(&["root", "1001"]));
        assert!(exempt.has(&of(0)) && exempt.has(&of(1001)) && !exempt.has(&of(1000)));
        assert_eq!(unknown_users(&names(&["root", "4000000000", "no-such-user"])), names(&["no-such-user"]));
        assert!(!Exempt::of(&names(&["no-such-user"])).has(&of(0)), "a name that is unknown exempts nobody");
    }
}
