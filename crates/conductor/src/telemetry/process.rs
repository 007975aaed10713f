//! What the system says of this process, under the names that every Prometheus client gives it. On Linux only.

use std::fs;

use super::metrics::family::Family;

/// What the process takes of the machine now. Reads files of `/proc`, which takes microseconds. What they do not say is
/// left out.
pub fn families() -> Vec<Family> {
    let statistics = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = fs::read_dir("/proc/self/fd").map(|files| files.count());
    // One of them is the directory that is being read.
    let files = files.ok().and_then(|count| u64::try_from(count.saturating_sub(1)).ok());
    let found = Usage::of(&statistics);
    let cpu = Family::counter("process_cpu_seconds_total", "Processor time that the process has taken.");
    let memory = Family::gauge("process_resident_memory_bytes", "Memory that the process has in use.");
    let virtual_memory = Family::gauge("process_virtual_memory_bytes", "Addresses that the process has in use.");
    let threads = Family::gauge("process_threads", "Threads of the process.");
    let open = Family::gauge("process_open_fds", "Files and connections that the process has open.");
    let most = Family::gauge("process_max_fds", "The most files and connections that it may have open.");
    let mut families = Vec::new();
    if let Some(Usage { cpu_seconds, threads: number, virtual_bytes, resident_bytes }) = found {
        families.push(cpu.with(cpu_seconds));
        families.push(memory.with(resident_bytes));
        families.push(virtual_memory.with(virtual_bytes));
        families.push(threads.with(number));
    }
    families.extend(files.map(|files| open.with(files)));
    families.extend(files_max(&limits).map(|max| most.with(max)));
    families
}

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Usage {
    fn of(statistics: &str) -> Option<Self> {
        // The program's name, in parentheses, may hold anything. What follows is counted from field 3.
        let (_, rest) = statistics.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)?;
        Some(Self {
            cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * rustix::param::page_size() as u64,
        })
    }
}

/// The soft limit of open files in `/proc/self/limits`; none where there is no limit.
fn files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_fields_is_passed_over() {
        let fields = (3..=24).map(|number: u32| number.to_string()).collect::<Vec<_>>().join(" ");
        let usage = Usage::of(&format!("7 (a) b (c) 1 2) {fields}")).unwrap();
        assert_eq!((usage.threads, usage.virtual_bytes), (20, 23));
        assert_eq!(Usage::of(""), None);
        assert_eq!(Usage::of("7 (a) S 1 2"), None);
    }

    #[test]
    fn the_limit_is_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024   524288   files\n";
        assert_eq!(files_max(limits), Some(1024));
        assert_eq!(files_max("Max open files  unlimited  unlimited  files"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_measured() {
        let families = families();
        assert_eq!(families.len(), 6);
        let text = crate::telemetry::metrics::family::text(&families);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is missing in:\n{text}")).parse::<f64>().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1_000_000.0);
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
    }
}
