//! The Vulkan loader and Mesa's software driver (lavapipe), so that GPU code runs on any Linux.
//!
//! Installed only where `apt-get` is there and either we are root or `sudo` asks no password.
//! Anywhere else the step says what to type and the set-up goes on.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{State, Step};
use crate::layout::Layout;
use crate::run;

const PACKAGES: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];
const DRIVER_FOLDERS: [&str; 3] = [
    "/usr/share/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/etc/vulkan/icd.d",
];

/// The step.
#[derive(Debug)]
pub(crate) struct Vulkan;

impl Step for Vulkan {
    fn name(&self) -> &'static str {
        "Vulkan"
    }

    fn state(&self, _: &Layout) -> Result<State> {
        if cfg!(target_os = "macos") {
            return Ok(State::Ready("not needed: Metal is part of macOS".into()));
        }
        if cfg!(windows) {
            return Ok(State::Ready(
                "part of the graphics driver on Windows".into(),
            ));
        }
        Ok(judge(loader(), &drivers(), apt()))
    }

    fn bring(&self, layout: &Layout) -> Result<State> {
        let Some(prefix) = privileges() else {
            return Ok(State::ByHand(format!(
                "needs root: `sudo apt-get update && sudo apt-get install -y \
                 --no-install-recommends {}`",
                PACKAGES.join(" ")
            )));
        };
        // A stale or unreachable third-party source must not stop us; the install will tell.
        run::status(&mut apt_get(prefix, &["update", "-q"]))?;
        run::succeed(
            apt_get(prefix, &["install", "-q", "-y", "--no-install-recommends"]).args(PACKAGES),
        )?;
        self.state(layout)
    }
}

/// From what is there to what to do.
fn judge(loader: bool, drivers: &[String], apt: bool) -> State {
    let software = drivers.iter().find(|name| name.starts_with("lvp_icd"));
    match (loader, software) {
        (true, Some(name)) => State::Ready(format!("loader and software driver ({name})")),
        // A hardware driver does as well where we could not install the software one.
        (true, None) if !apt && !drivers.is_empty() => State::Ready(format!(
            "loader and hardware driver ({})",
            drivers.join(", ")
        )),
        (_, _) if apt => State::Missing(format!("installing {}", PACKAGES.join(" and "))),
        (_, _) => State::ByHand(
            "no software driver. Fedora: `dnf install vulkan-loader mesa-vulkan-drivers`; Arch: \
             `pacman -S vulkan-icd-loader vulkan-swrast`; other systems: the Vulkan loader and \
             Mesa's lavapipe"
                .into(),
        ),
    }
}

fn loader() -> bool {
    let known = ["ldconfig", "/sbin/ldconfig"]
        .iter()
        .find_map(|program| run::read(Command::new(program).arg("-p")).ok())
        .is_some_and(|list| list.contains("libvulkan.so.1"));
    // Systems without an ldconfig cache.
    known
        || ["/usr/lib", "/usr/lib64"]
            .iter()
            .any(|lib| Path::new(lib).join("libvulkan.so.1").exists())
}

fn drivers() -> Vec<String> {
    let mut names: Vec<String> = DRIVER_FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    names
}

fn apt() -> bool {
    run::works("apt-get", &["--version"])
}

/// Words before `apt-get`: nothing for root, `sudo -n` where it asks no password.
fn privileges() -> Option<&'static [&'static str]> {
    let root = run::read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if root {
        Some(&[])
    } else if run::works("sudo", &["-n", "true"]) {
        Some(&["sudo", "-n"])
    } else {
        None
    }
}

fn apt_get(prefix: &[&str], args: &[&str]) -> Command {
    // Through `env`, because sudo drops variables.
    let words = [
        prefix,
        &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"],
        args,
    ]
    .concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ready_needs_the_loader_and_the_software_driver() {
        let lavapipe = names(&["intel_icd.x86_64.json", "lvp_icd.x86_64.json"]);
        assert!(matches!(judge(true, &lavapipe, true), State::Ready(_)));
        assert!(matches!(judge(false, &lavapipe, true), State::Missing(_)));
        assert!(matches!(judge(true, &[], true), State::Missing(_)));
    }

    #[test]
    fn a_hardware_driver_does_where_nothing_can_be_installed() {
        let hardware = names(&["nvidia_icd.json"]);
        assert!(matches!(judge(true, &hardware, false), State::Ready(_)));
        assert!(matches!(judge(true, &hardware, true), State::Missing(_)));
        assert!(matches!(judge(true, &[], false), State::ByHand(_)));
    }

    #[test]
    fn sudo_stands_before_env() {
        let line = run::line(&apt_get(&["sudo", "-n"], &["update"]));
        assert_eq!(
            line,
            "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update"
        );
    }
}
