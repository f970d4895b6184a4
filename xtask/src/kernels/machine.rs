//! One virtual machine, from power on to power off.
//!
//! Emulated, because virtualisation inside of virtual machines is often missing or broken, and what is asked here is
//! whether the tap is right, not how fast it is. Its clock counts instructions (`-icount`): for what runs in there it is a
//! slow machine, not one that stands still again and again, so that no suite has to wait longer in there than here.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::kernel::Kernel;

/// Boots, waits for the end, and returns whether the command in there said that all is well, and the figures that were its
/// last line. What the console showed goes to `log`.
///
/// # Errors
/// When it does not start, or ends without figures; the message carries the console's last lines.
pub(crate) fn boot(
    kernel: &Kernel,
    initramfs: &Path,
    log: &Path,
    patience: Duration,
) -> anyhow::Result<(bool, Value)> {
    let mut machine = Machine(
        Command::new("qemu-system-x86_64")
            .args(MACHINE)
            .args(["-smp", processors(&kernel.release)])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", COMMAND_LINE])
            .stdin(Stdio::null())
            .stdout(File::create(log).with_context(|| format!("writing {}", log.display()))?)
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start qemu-system-x86_64")?,
    );
    let deadline = Instant::now() + patience;
    while machine.0.try_wait()?.is_none() {
        if Instant::now() > deadline {
            let minutes = patience.as_secs() / 60;
            bail!(
                "it was not done within {minutes} minutes:\n{}",
                tail(&console(log))
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let said = console(log);
    said_at_the_end(&said).with_context(|| format!("it ended without figures:\n{}", tail(&said)))
}

/// Two, where they come up: by an instruction clock, that of 5.10 waits for ever for its second one, and how they are brought
/// up changed in 6.5.
fn processors(release: &str) -> &'static str {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    match version {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 5) => "2",
        _ => "1",
    }
}

/// Whether the command succeeded, and its figures.
fn said_at_the_end(said: &str) -> Option<(bool, Value)> {
    let last = |name: &str| said.lines().rev().find_map(|line| line.strip_prefix(name));
    let figures = serde_json::from_str(last("figures: ")?).ok()?;
    Some((last("ended: ")? == "0", figures))
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

/// The last lines of a text that may be long.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default()
        .join("\n")
}

/// Processors in turn, a nanosecond an instruction; this host's files, read only; what is written lies in memory.
const MACHINE: [&str; 20] = [
    "-accel",
    "tcg,thread=single",
    "-icount",
    "shift=0,sleep=on",
    "-cpu",
    "max",
    "-m",
    "4096",
    "-nodefaults",
    "-nographic",
    "-no-reboot",
    "-serial",
    "stdio",
    "-net",
    "none",
    "-fsdev",
    "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
    "-device",
    "virtio-9p-pci,fsdev=host,mount_tag=host",
    "-no-user-config",
];
/// A panic is an end. Mitigations cost a third of the time, and change nothing that is asked here.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on";
const LINES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_have_one_processor() {
        let expected = [
            ("5.10.0-32-amd64", "1"),
            ("6.1.0-50-amd64", "1"),
            ("6.12.107+deb13-amd64", "2"),
            ("7.3.4+deb13-amd64", "2"),
            ("unknown", "1"),
        ];
        for (release, count) in expected {
            assert_eq!(processors(release), count, "{release}");
        }
    }

    #[test]
    fn a_machine_passed_only_if_it_says_so() {
        let said = "some: noise\nfigures: {\"missing\":0}\nended: 0\n[ 12.3] reboot: Power down\n";
        let (passed, figures) = said_at_the_end(said).expect("figures");
        assert!(passed);
        assert_eq!(figures["missing"], 0);
        let failed = said.replace("ended: 0", "ended: 1");
        assert!(said_at_the_end(&failed).is_some_and(|(passed, _)| !passed));
        for cut in ["figures: \nended: 0\n", "figures: {}\n", "ended: 0\n", ""] {
            assert!(said_at_the_end(cut).is_none(), "{cut}");
        }
    }
}
