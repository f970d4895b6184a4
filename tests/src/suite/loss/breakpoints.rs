//! The probes of one backend are taken out behind the agent's back, and put in again.
//!
//! Owns the change of the backend's code: the breakpoint that the kernel has put over a function's first byte is
//! overwritten with what stands in the file, so that this process runs past the tap while all others do not. It is what code
//! inside the server could do to hide.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, read::ReadCache};

use super::Found;
use super::scene::Scene;
use crate::cluster::{APP_ROLE, DATABASE};
use crate::route::Route;
use crate::tap::{Settings, Tier};

/// A TLS session whose backend reads and writes past its probes for a while.
pub(super) async fn run(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(Settings::clear(Tier::Auto), &[Route::Tls]).await?;
    let mut sessions = scene.sessions(1)?;
    let mark = scene.mark();
    for _ in 0..2 {
        scene.utter(&mut sessions).await?;
    }
    scene.is_sure(mark);
    let admin = scene.cluster.superuser(DATABASE).await?;
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename = $1";
    let backend = u32::try_from(admin.query_one(sql, &[&APP_ROLE]).await?.get::<_, i32>(0))?;
    let probes = Probes::of(backend)?;
    probes.put(false)?;
    for _ in 0..3 {
        scene.utter(&mut sessions).await?;
    }
    probes.put(true)?;
    // The first one behind it tells, and may be lost with what was missed.
    scene.utter(&mut sessions).await?;
    let mark = scene.mark();
    for _ in 0..4 {
        scene.utter(&mut sessions).await?;
    }
    scene.is_sure(mark);
    Scene::end(sessions).await?;
    let (mut found, record) = scene.close_with_record(vec!["probe_missed"], keep).await?;
    let mut told = BTreeMap::<String, u64>::new();
    let gaps = record.sessions.values().flat_map(|seen| &seen.gaps);
    for gap in gaps.filter(|gap| gap.reason == "probe_missed") {
        *told.entry(gap.direction.clone().unwrap_or_default()).or_default() += 1;
    }
    if told != [("backend".to_owned(), 1), ("frontend".to_owned(), 1)].into() {
        found
            .wrong
            .push(format!("told otherwise than once for each direction: {told:?}"));
    }
    if found.ledger.told_missing == 0 {
        found.wrong.push("nothing was missed".to_owned());
    }
    Ok(found)
}

/// First bytes of the probed functions of one process: where they are, and what stands there without a breakpoint.
struct Probes {
    memory: File,
    bytes: Vec<(u64, u8)>,
}

impl Probes {
    fn of(pid: u32) -> Result<Self> {
        let file = fs::read_link(format!("/proc/{pid}/exe"))?;
        let places = places(&file)?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let file_name = file.display().to_string();
        let executable = maps
            .lines()
            .find(|line| line.contains(" r-xp ") && line.ends_with(&file_name))
            .context("the server's code is mapped nowhere")?;
        let mut fields = executable.split_ascii_whitespace();
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).context("an address");
        let start = fields.next().and_then(|range| range.split('-').next());
        let start = hexadecimal(start.context("a range of addresses")?)?;
        let offset = hexadecimal(fields.nth(1).context("an offset")?)?;
        let code = File::open(&file)?;
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        let mut bytes = Vec::new();
        for place in places {
            let mut byte = [0];
            code.read_exact_at(&mut byte, place)?;
            bytes.push((start + place - offset, byte[0]));
        }
        Ok(Self { memory, bytes })
    }

    /// In or out. They are out or in before.
    fn put(&self, breakpoint: bool) -> Result<()> {
        for (address, byte) in &self.bytes {
            let (from, to) = if breakpoint {
                (*byte, BREAKPOINT)
            } else {
                (BREAKPOINT, *byte)
            };
            let mut found = [0];
            self.memory.read_exact_at(&mut found, *address)?;
            ensure!(
                found == [from],
                "there is {found:?} at {address:#x}, not {from:#x}"
            );
            self.memory.write_all_at(&[to], *address)?;
        }
        Ok(())
    }
}

/// Where the functions stand in the file.
fn places(file: &PathBuf) -> Result<Vec<u64>> {
    let cache = ReadCache::new(File::open(file)?);
    let elf = object::File::parse(&cache)?;
    let mut places = Vec::new();
    for symbol in elf.dynamic_symbols() {
        if !symbol.is_definition() || !symbol.name().is_ok_and(|name| FUNCTIONS.contains(&name)) {
            continue;
        }
        let place = elf.segments().find_map(|segment| {
            let within = symbol.address().checked_sub(segment.address())?;
            let (start, size) = segment.file_range();
            (within < size).then_some(start + within)
        });
        places.push(place.context("a function outside of the file")?);
    }
    ensure!(places.len() == FUNCTIONS.len(), "the server lacks {FUNCTIONS:?}");
    Ok(places)
}

const FUNCTIONS: [&str; 2] = ["be_tls_read", "be_tls_write"];
/// `int3` of x86.
const BREAKPOINT: u8 = 0xcc;
