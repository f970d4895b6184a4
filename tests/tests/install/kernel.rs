//! What an agent has in the kernel, while it runs and after.
//!
//! Other agents may run on this machine: only what this one holds counts.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};

/// What an agent has in the kernel, by its ids, which are not given again.
#[derive(Debug, Default)]
pub(super) struct InKernel {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl InKernel {
    /// What these processes hold (`prog_id`, `map_id` and `link_id` in `/proc/PID/fdinfo`), and programs that use any of these maps.
    pub(super) fn of(processes: &[u32]) -> Self {
        let mut found = Self::default();
        for process in processes {
            let files = fs::read_dir(format!("/proc/{process}/fdinfo"));
            for file in files.into_iter().flatten().flatten() {
                let text = fs::read_to_string(file.path()).unwrap_or_default();
                for line in text.lines() {
                    let Some((key, value)) = line.split_once(':') else {
                        continue;
                    };
                    let into = match key {
                        "prog_id" => &mut found.programs,
                        "map_id" => &mut found.maps,
                        "link_id" => &mut found.links,
                        _ => continue,
                    };
                    into.extend(value.trim().parse::<u32>());
                }
            }
        }
        for program in loaded_programs().flatten() {
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            if maps.iter().any(|map| found.maps.contains(map)) {
                found.programs.insert(program.id());
            }
        }
        found
    }

    /// What of it is there.
    fn left(&self) -> Self {
        let programs = loaded_programs().flatten().map(|program| program.id());
        let maps = loaded_maps().flatten().map(|map| map.id());
        let links = loaded_links().flatten().map(|link| link.id());
        Self {
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
            links: links.filter(|id| self.links.contains(id)).collect(),
        }
    }

    /// Whether there is something of it, and nobody looked past it.
    pub(super) fn is_all_loaded(&self) -> bool {
        let left = self.left();
        !self.programs.is_empty()
            && !self.maps.is_empty()
            && left.programs == self.programs
            && left.maps == self.maps
    }

    /// The kernel frees a moment later than a process ends.
    pub(super) fn is_gone(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut left = self.left();
        while !(left.programs.is_empty() && left.maps.is_empty() && left.links.is_empty()) {
            assert!(Instant::now() < deadline, "still in the kernel: {left:?}");
            std::thread::sleep(Duration::from_millis(200));
            left = self.left();
        }
    }
}
