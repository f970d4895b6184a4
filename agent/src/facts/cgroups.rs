//! Ids of cgroups in the unified hierarchy, and their paths.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Paths remembered; beyond it the table is walked anew. A node of the largest size has some ten thousand.
const PATHS: usize = 65_536;

/// A walk costs milliseconds on a full host, and an id that it does not find will not be there a moment later.
const WALK_INTERVAL: Duration = Duration::from_millis(100);

/// The paths of cgroups, by id.
///
/// An agent that is for one cgroup and what is below it sees paths from there on, as a kernel of its own would show them;
/// whatever is outside of it has none.
pub struct Cgroups {
    mount: Option<PathBuf>,
    /// From the root of the hierarchy.
    paths: HashMap<u64, String>,
    within: Option<String>,
    walked: Option<Instant>,
}

impl Cgroups {
    /// Reads what is there now.
    pub fn read() -> Self {
        let mut cgroups = Self {
            mount: mount_point(),
            paths: HashMap::new(),
            within: None,
            walked: None,
        };
        cgroups.walk();
        cgroups
    }

    /// Only that cgroup and what is below it counts.
    #[must_use]
    pub fn within(self, path: Option<&str>) -> Self {
        Self {
            within: path.map(str::to_owned),
            ..self
        }
    }

    /// A path as it is seen from where the agent's cgroups begin; `None` if it is outside.
    pub fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        below(self.within.as_deref(), path)
    }

    /// Whether a cgroup is certainly outside.
    pub fn is_outside(&mut self, id: u64) -> bool {
        if self.within.is_none() {
            return false;
        }
        self.find(id);
        self.paths.get(&id).is_some_and(|path| self.below(path).is_none())
    }

    /// Where the unified hierarchy is mounted.
    pub fn mount(&self) -> Option<&Path> {
        self.mount.as_deref()
    }

    /// The kernel told of a new one.
    pub fn made(&mut self, id: u64, path: String) {
        if self.paths.len() >= PATHS {
            self.paths.clear();
        }
        self.paths.insert(id, path);
    }

    /// The path of a cgroup; `None` if it is outside, or gone and was never seen.
    pub fn path(&mut self, id: u64) -> Option<&str> {
        self.find(id);
        self.paths.get(&id).and_then(|path| self.below(path))
    }

    fn find(&mut self, id: u64) {
        let may_walk = self.walked.is_none_or(|at| at.elapsed() > WALK_INTERVAL);
        if !self.paths.contains_key(&id) && may_walk {
            self.walk();
        }
    }

    fn walk(&mut self) {
        self.walked = Some(Instant::now());
        let Some(mount) = self.mount.clone() else { return };
        let mut waiting = vec![mount.clone()];
        while let Some(folder) = waiting.pop() {
            // The id of a cgroup is the inode number of its folder. One may vanish while we look.
            let Ok(metadata) = fs::metadata(&folder) else {
                continue;
            };
            let below = folder.strip_prefix(&mount).unwrap_or(Path::new(""));
            self.paths.insert(metadata.ino(), format!("/{}", below.display()));
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            let folders = entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            waiting.extend(folders.map(|entry| entry.path()));
        }
    }
}

/// A path as it is seen from `within`; `None` if it is outside.
pub fn below<'a>(within: Option<&str>, path: &'a str) -> Option<&'a str> {
    let Some(within) = within else {
        return Some(path);
    };
    match path.strip_prefix(within)? {
        "" => Some("/"),
        rest => rest.starts_with('/').then_some(rest),
    }
}

/// The mount point of the unified hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` where it is hybrid.
pub(super) fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        // proc(5): the fifth field is the mount point, the first behind " - " the type.
        let (front, back) = line.split_once(" - ")?;
        let is_unified = back.split(' ').next() == Some("cgroup2");
        is_unified
            .then(|| front.split(' ').nth(4))
            .flatten()
            .map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_and_told_ones_have_paths() {
        let mut cgroups = Cgroups::read();
        if let Some(mount) = cgroups.mount().map(Path::to_path_buf) {
            let root = fs::metadata(mount).expect("the mount point").ino();
            assert_eq!(cgroups.path(root), Some("/"));
        }
        cgroups.made(u64::MAX, "/system.slice/a.service".to_owned());
        assert_eq!(cgroups.path(u64::MAX), Some("/system.slice/a.service"));
        assert_eq!(cgroups.path(u64::MAX - 1), None);
    }

    #[test]
    fn what_is_outside_has_no_path() {
        let mut cgroups = Cgroups::read().within(Some("/nodes/one"));
        cgroups.made(u64::MAX, "/nodes/one/system.slice/a.service".to_owned());
        cgroups.made(u64::MAX - 1, "/nodes/one-more/system.slice/a.service".to_owned());
        cgroups.made(u64::MAX - 2, "/nodes/one".to_owned());
        assert_eq!(cgroups.path(u64::MAX), Some("/system.slice/a.service"));
        assert_eq!(cgroups.path(u64::MAX - 1), None);
        assert_eq!(cgroups.path(u64::MAX - 2), Some("/"));
        let outside = [0, 1, 2, 3].map(|less| cgroups.is_outside(u64::MAX - less));
        assert_eq!(
            outside,
            [false, true, false, false],
            "of the last nothing is known"
        );
    }
}
