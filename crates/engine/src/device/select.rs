//! From a choice to a device, with the reason in one line.
//!
//! `auto` order: discrete GPU, integrated, virtual; CUDA before wgpu on equal kinds; then flex.

use burn::tensor::Device;

use super::{
    choice::{Backend, DeviceChoice},
    error::DeviceError,
    info::{DeviceInfo, DeviceKind},
    list::{Found, ask, built_in, compiler_present, found},
};

/// A device that exists and opened.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The burn device.
    pub device: Device,
    /// Its name with index; never `auto`.
    pub choice: DeviceChoice,
    /// Its properties.
    pub info: DeviceInfo,
    /// Reason for this choice, in one line.
    pub reason: String,
}

impl Selected {
    /// True for the native CPU backend.
    pub fn is_flex(&self) -> bool {
        self.choice == DeviceChoice::FLEX
    }
}

/// Finds and opens the device.
///
/// # Errors
/// [`DeviceError`]: the backend is not built in (with the cargo feature that adds it), the index is
/// out of range (with what there is), or the driver will not open the device.
pub fn select(choice: DeviceChoice) -> Result<Selected, DeviceError> {
    match choice {
        DeviceChoice::Named { backend, index } => {
            let mut all = found(Some(backend));
            let at = position(&all, choice, backend, index)?;
            let mut chosen = all.swap_remove(at);
            if !compiler_present(&chosen) {
                return Err(DeviceError::NoKernelCompiler {
                    got: choice.to_string(),
                });
            }
            if !ask(&mut chosen) {
                return Err(DeviceError::CannotOpen {
                    got: choice.to_string(),
                    name: chosen.info.name,
                });
            }
            let reason = format!("{choice}: {}, as asked", chosen.info.title());
            Ok(selected(chosen, reason))
        }
        DeviceChoice::Auto => {
            let mut all = found(None);
            let infos: Vec<_> = all.iter().map(|f| f.info.clone()).collect();
            for at in gpus_by_preference(&infos) {
                let mut chosen = all[at].clone();
                if compiler_present(&chosen) && ask(&mut chosen) {
                    let reason = format!(
                        "{}: {}, the best GPU found",
                        chosen.info.choice,
                        chosen.info.title()
                    );
                    return Ok(selected(chosen, reason));
                }
            }
            let at = position(&all, choice, Backend::Flex, 0)?;
            Ok(selected(all.swap_remove(at), why_flex(&infos)))
        }
    }
}

fn selected(found: Found, reason: String) -> Selected {
    Selected {
        device: found.handle.device(),
        choice: found.info.choice,
        info: found.info,
        reason,
    }
}

/// Finds the position of the named device in the list.
fn position(
    all: &[Found],
    choice: DeviceChoice,
    backend: Backend,
    index: usize,
) -> Result<usize, DeviceError> {
    let got = choice.to_string();
    if !backend.built_in() {
        return Err(DeviceError::NotBuiltIn {
            got,
            backend,
            built_in: built_in(),
        });
    }
    let wanted = DeviceChoice::Named { backend, index };
    all.iter()
        .position(|f| f.info.choice == wanted)
        .ok_or_else(|| missing(got, backend, all))
}

fn missing(got: String, backend: Backend, all: &[Found]) -> DeviceError {
    let of_backend = |f: &&Found| matches!(f.info.choice, DeviceChoice::Named { backend: b, .. } if b == backend);
    let there: Vec<_> = all.iter().filter(of_backend).collect();
    let available = match there.len() {
        0 => "no device".to_string(),
        1 => "one device".to_string(),
        n => format!("{n} devices"),
    };
    let list = if there.is_empty() {
        "; use auto or flex, or install the GPU's driver".to_string()
    } else {
        there
            .iter()
            .map(|f| format!("\n  {}: {}", f.info.choice, f.info.title()))
            .collect()
    };
    DeviceError::NoSuchDevice {
        got,
        backend,
        available,
        list,
    }
}

/// Positions of real GPUs, best first.
fn gpus_by_preference(all: &[DeviceInfo]) -> Vec<usize> {
    let mut gpus: Vec<usize> = (0..all.len()).filter(|&i| all[i].kind.is_gpu()).collect();
    gpus.sort_by_key(|&i| all[i].kind);
    gpus
}

fn why_flex(all: &[DeviceInfo]) -> String {
    let mut names: Vec<&str> = all
        .iter()
        .filter(|i| i.kind == DeviceKind::Software)
        .map(|i| i.name.as_str())
        .collect();
    names.dedup();
    let gpu_backends = Backend::ALL
        .iter()
        .any(|b| *b != Backend::Flex && b.built_in());
    if all.iter().any(|i| i.kind.is_gpu()) {
        return "flex (CPU): a GPU is listed, but its driver would not open it or NVRTC is missing"
            .to_string();
    }
    match names.as_slice() {
        _ if !gpu_backends => "flex (CPU): no GPU backend in this build".to_string(),
        [] => "flex (CPU): no GPU found".to_string(),
        [name] => format!(
            "flex (CPU): no GPU found; the only graphics adapter is {name}, a software driver"
        ),
        more => format!(
            "flex (CPU): no GPU found; the graphics adapters {} are software drivers",
            more.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(backend: Backend, name: &str, kind: DeviceKind) -> DeviceInfo {
        DeviceInfo {
            choice: DeviceChoice::Named { backend, index: 0 },
            name: name.to_string(),
            kind,
            backend: String::new(),
            memory: None,
            capabilities: None,
        }
    }

    #[test]
    fn auto_prefers_discrete_then_integrated_and_never_software() {
        let all = [
            info(Backend::Flex, "cpu", DeviceKind::Cpu),
            info(Backend::Wgpu, "lavapipe", DeviceKind::Software),
            info(Backend::Wgpu, "igpu", DeviceKind::Integrated),
            info(Backend::Cuda, "card", DeviceKind::Discrete),
        ];
        assert_eq!(gpus_by_preference(&all), [3, 2]);
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn the_reason_names_a_software_driver() {
        let all = [
            info(Backend::Flex, "cpu", DeviceKind::Cpu),
            info(Backend::Wgpu, "llvmpipe", DeviceKind::Software),
        ];
        assert_eq!(
            why_flex(&all),
            "flex (CPU): no GPU found; the only graphics adapter is llvmpipe, a software driver"
        );
        assert_eq!(why_flex(&all[..1]), "flex (CPU): no GPU found");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn flex_and_auto_open() {
        assert!(select(DeviceChoice::FLEX).expect("flex").is_flex());
        let auto = select(DeviceChoice::Auto).expect("auto");
        assert_ne!(auto.info.kind, DeviceKind::Software);
    }

    #[test]
    fn absent_devices_are_typed_errors() {
        for backend in Backend::ALL {
            let choice = DeviceChoice::Named { backend, index: 99 };
            match (backend.built_in(), select(choice)) {
                (true, Err(DeviceError::NoSuchDevice { .. })) => {}
                (false, Err(error @ DeviceError::NotBuiltIn { .. })) => {
                    assert!(error.to_string().contains("cargo feature"), "{error}");
                }
                (_, other) => panic!("{choice}: {other:?}"),
            }
        }
    }
}
