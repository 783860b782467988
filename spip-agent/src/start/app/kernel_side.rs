//! The kernel side as the configuration wants it: what is attached, what is steered, and what is said where something
//! cannot be had.

use anyhow::{Context, Result, bail};

use super::Options;
use crate::config::{Config, EbpfMode, SteeringMode};
use crate::kernel::ebpf::{self, Attached, Part, PinnedSteering};
use crate::kernel::listen::Listeners;
use crate::kernel::steering::Steering;

/// Reason why there is no kernel side when it is turned off.
const OFF: &str = "ebpf = \"off\"";
/// Remedy when steering is not available: without it nothing would arrive.
const NO_STEERING: &str =
    "steering = \"sk_lookup\" is not available; fix that, or set steering = \"redirect\" and install rules";

/// Fills the maps of steering.
pub(super) fn prepare_steering(config: &Config, listeners: &Listeners, attached: &mut Attached) -> Result<Steering> {
    if config.steering.pin_links && attached.pins().is_none() {
        let reason = attached.description().pins.missing().unwrap_or("there is no directory").to_owned();
        return Err(anyhow::anyhow!(reason).context("pin_links = true needs bpf_pin_path"));
    }
    if !config.steering.interfaces.is_empty() && !attached.knows_link() {
        bail!("steer_interfaces needs Linux 5.17: leave it out, or set steer_prefixes instead");
    }
    let maps = attached.take_steer_maps().context(NO_STEERING)?;
    Steering::prepare(config, maps, &listeners.sockets, config.listen).context(NO_STEERING)
}

/// Begins to steer.
pub(super) fn steer(
    config: &Config,
    listeners: &Listeners,
    attached: &Attached,
    steering: &Steering,
) -> Result<Option<PinnedSteering>> {
    // What is attached later is asked later. A link that is pinned here is replaced.
    let others = ebpf::other_steering(&config.ebpf.pin_path).unwrap_or_else(|reason| {
        log::info!(target: "steering", reason = reason.as_str(); "cannot determine whether other programs steer here");
        0
    });
    let pinned = attached.steer(config.steering.pin_links).context(NO_STEERING)?;
    if others > 0 {
        log::warn!(target: "steering", programs = others;
            "{others} other sk_lookup program{} attached to this network namespace before: the connections that it takes do not \
             reach this agent; stop the other agent or program (bpftool net, bpftool link) and restart this one",
            if others == 1 { " was" } else { "s were" });
    }
    if let Some(other) = ebpf::pinned_link(&config.ebpf.pin_path).filter(|_| attached.pins().is_none()) {
        log::warn!(target: "steering",
            "another agent has {}: while it steers, its connections do not reach this agent", other.display());
    }
    let link = pinned.as_ref().map(|pinned| pinned.path().display().to_string()).unwrap_or_default();
    let (ipv4, ipv6) = listeners.families;
    let (prefixes, interfaces) = (&config.steering.prefixes, &config.steering.interfaces);
    let but = if prefixes.is_empty() && interfaces.is_empty() {
        ""
    } else {
        " and what steer_prefixes and steer_interfaces leave out"
    };
    log::info!(target: "steering", ipv4 = ipv4, ipv6 = ipv6, exclusions = steering.exclusions().as_str(),
        steer_loopback = config.steering.loopback, steer_prefixes = prefixes.len(),
        steer_interfaces = interfaces.join(", ").as_str(), pinned_link = link.as_str();
        "every port is steered to the agent, except the exclusions{but}");
    if let Some(services) = steering.overruled() {
        log::warn!(target: "steering", services = services.as_str();
            "services of users that exempt_services_of does not name get no new connections while this agent runs; add their \
             users, if they are to keep their ports");
    }
    if !(ipv4 && ipv6) {
        let family = if ipv4 { "IPv6" } else { "IPv4" };
        log::warn!(target: "steering",
            "{family} is not steered: the listening socket cannot take it; set ip = \"127.0.0.1\", \"0.0.0.0\" or \"::\", \
             or have the service manager pass a socket of both families");
    }
    if let Some((from, to)) = steering.all_outgoing_ports() {
        log::warn!(target: "steering",
            "clients can occupy every port from which this machine connects out ({from}-{to}): if it must, reserve some \
             with exclude_ports, for example \"{}-{to}\"", to.saturating_sub(999).max(from));
    }
    Ok(pinned)
}

/// Attaches the kernel side as the configuration wants it; says what it does, or why it is not there.
pub(super) fn attach(
    config: &Config,
    listeners: &Listeners,
    takes_over: bool,
    options: &Options,
) -> Result<Part<Attached>> {
    if config.ebpf.mode == EbpfMode::Off {
        log::info!(target: "ebpf", reason = OFF; "eBPF is off: destinations come from connection tracking");
        return Ok(Part::Missing(OFF.to_owned()));
    }
    let steered = config.steering.mode == SteeringMode::SkLookup;
    let steering = steered.then(|| ebpf::SteerRequest {
        loopback: config.steering.loopback,
        sockets: u32::try_from(listeners.sockets.len()).unwrap_or(u32::MAX),
        seed: uuid::Uuid::new_v4().as_fields().0,
        takes_over,
    });
    let request = ebpf::Request {
        config: &config.ebpf,
        listener: listeners.address,
        sockets: &listeners.sockets,
        scans: config.scans.enabled,
        log_level: options.ebpf_log,
        steering,
    };
    match ebpf::start(&request) {
        Ok(attached) => {
            attached.announce();
            Ok(Part::Present(attached))
        }
        Err(error) if config.ebpf.mode == EbpfMode::Required => {
            Err(error).context("ebpf = \"required\", and eBPF cannot be used")
        }
        Err(error) if steered => Err(error).context(
            "steering = \"sk_lookup\" is not available, so no connection would arrive; fix that, or set steering = \"redirect\" \
             and install rules",
        ),
        Err(error) => {
            let reason = format!("{:#}", anyhow::Error::from(error));
            log::warn!(target: "ebpf", reason = reason.as_str();
                "eBPF is not used: destinations come from connection tracking");
            Ok(Part::Missing(reason))
        }
    }
}
