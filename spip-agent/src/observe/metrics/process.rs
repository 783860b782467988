//! Memory, processor time and descriptors of this process, under the names that Prometheus has for them.
//!
//! The sandbox closes `/proc`; what is read there is opened before.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::stat::Mode;
use nix::sys::time::TimeVal;
use nix::unistd::{SysconfVar, sysconf};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Sources of the numbers of this process. Numbers that cannot be read are left out of the page.
pub(super) struct Process {
    statm: Option<File>,
    descriptors: Option<Mutex<Dir>>,
    page_bytes: u64,
    started: Duration,
}

impl Process {
    pub(super) fn open() -> Self {
        let directory =
            Dir::open("/proc/self/fd", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        Self {
            statm: File::open("/proc/self/statm").ok(),
            descriptors: directory.ok().map(Mutex::new),
            page_bytes: page.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4_096),
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Bytes of the address space, and of it in RAM.
    fn memory(&self) -> Option<[u64; 2]> {
        let mut text = [0; 128];
        let length = self.statm.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        let mut pages = text.split(' ').map_while(|number| number.parse::<u64>().ok());
        Some([pages.next()? * self.page_bytes, pages.next()? * self.page_bytes])
    }

    fn open_descriptors(&self) -> Option<u64> {
        let mut directory = self.descriptors.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        // Rewinds when the iterator is dropped; `.` and `..` are no descriptors.
        Some((directory.iter().filter(Result::is_ok).count() as u64).saturating_sub(2))
    }

    fn encode_to(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            out.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
        };
        if let Some([address_space, resident]) = self.memory() {
            gauge("process_resident_memory", "Memory that is in RAM.", Some(&Unit::Bytes), resident as f64)?;
            gauge("process_virtual_memory", "Address space.", Some(&Unit::Bytes), address_space as f64)?;
        }
        if let Some(open) = self.open_descriptors() {
            gauge("process_open_fds", "Descriptors that are open.", None, open as f64)?;
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            gauge("process_max_fds", "Descriptors that may be open.", None, soft as f64)?;
        }
        gauge("process_start_time", "When the process started.", Some(&Unit::Seconds), self.started.as_secs_f64())?;
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            let total = seconds(usage.user_time()) + seconds(usage.system_time());
            let (help, unit) = ("Processor time, of user and system together.", Some(&Unit::Seconds));
            let mut metric = out.encode_descriptor("process_cpu", help, unit, MetricType::Counter)?;
            metric.encode_counter::<[(&str, &str); 0], _, f64>(&total, None)?;
        }
        Ok(())
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.encode_to(&mut encoder)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}
