//! Facts that every line of this sensor shares.

use spip_record::Format;

use crate::config::PublicAddresses;

/// Facts that are the same in every record of this sensor.
#[derive(Clone, Debug)]
pub struct Sensor {
    /// `name`.
    pub name: String,
    /// The run of the agent ([`crate::process::run::id`]).
    pub run: &'static str,
    /// `community_id_seed`.
    pub community_id_seed: u16,
    /// `log_format`.
    pub format: Format,
    /// `max_line_bytes`.
    pub max_line_bytes: usize,
    /// `public_addresses`.
    pub public: PublicAddresses,
}
