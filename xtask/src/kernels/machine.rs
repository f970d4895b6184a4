//! One virtual machine, from power on to power off.
//!
//! Emulated, because virtualisation inside of virtual machines is often missing or broken, and what is asked here is
//! whether the tap is right, not how fast it is.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Boots, waits for the end, and returns whether the suite in there passed, and its results. What the console showed
/// goes to `log`.
///
/// # Errors
/// When it does not start, or ends without figures; the message carries the console's last lines.
pub(crate) fn boot(image: &Path, initramfs: &Path, log: &Path) -> anyhow::Result<(bool, Vec<Value>)> {
    let mut machine = Machine(
        Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                MEMORY,
            ])
            .args([
                "-nodefaults",
                "-nographic",
                "-no-reboot",
                "-serial",
                "stdio",
                "-net",
                "none",
            ])
            .arg("-kernel")
            .arg(image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", COMMAND_LINE])
            .stdin(Stdio::null())
            .stdout(File::create(log).with_context(|| format!("writing {}", log.display()))?)
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start qemu-system-x86_64")?,
    );
    let deadline = Instant::now() + PATIENCE;
    while machine.0.try_wait()?.is_none() {
        if Instant::now() > deadline {
            let minutes = PATIENCE.as_secs() / 60;
            bail!(
                "it was not done within {minutes} minutes:\n{}",
                tail(&console(log))
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let said = console(log);
    let Some(figures) = said.lines().rev().find_map(|line| line.strip_prefix("figures: ")) else {
        bail!("it ended without figures:\n{}", tail(&said));
    };
    let figures: Value = serde_json::from_str(figures)
        .with_context(|| format!("it ended without figures:\n{}", tail(&said)))?;
    let results = figures.get("results").and_then(Value::as_array).cloned();
    let passed = figures.get("passed").and_then(Value::as_bool);
    results
        .zip(passed)
        .map(|(results, passed)| (passed, results))
        .context("its figures have no results")
}

/// Ends with its value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            let _ = self.0.wait();
        }
    }
}

/// Lines of a serial console end with CR and LF.
fn console(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).replace('\r', "")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default()
        .join("\n")
}

/// The initramfs is held twice while it is unpacked.
const MEMORY: &str = "2048";
/// A panic is an end. Mitigations cost a third of the time, and change nothing that is asked here.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on";
/// Ten times what it takes on two idle cores.
const PATIENCE: Duration = Duration::from_secs(40 * 60);
const LINES: usize = 30;
