//! NVRTC, CUDA's run-time compiler, loaded from a toolkit folder: CUDA C++ to PTX, no driver needed.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;

use anyhow::{Context, Result, bail};
use libloading::Library;

/// An opaque `nvrtcProgram`.
type Program = *mut std::ffi::c_void;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;

/// NVRTC, and what it opens by name at its first use: already loaded, the name is enough.
const LIBRARY: &str = "lib/libnvrtc.so.13";
const BUILTINS: &str = "lib/libnvrtc-builtins.so.13.0";

/// One mistake in a loop that is unrolled comes many times.
const LOG_LINES: usize = 12;

/// The loaded compiler and its headers. It may be called from several threads.
#[derive(Debug)]
pub struct Nvrtc {
    library: Library,
    _builtins: Library,
    include: PathBuf,
}

impl Nvrtc {
    /// Loads it from `toolkit`, which holds `lib/` and `include/`.
    ///
    /// # Errors
    /// When the library is not there or does not load.
    pub fn load(toolkit: &Path) -> Result<Self> {
        let open = |name: &str| {
            let path = toolkit.join(name);
            // SAFETY: the initialisers of both only set up the library itself.
            #[allow(unsafe_code)]
            unsafe { Library::new(&path) }
                .with_context(|| format!("cannot load {}", path.display()))
        };
        Ok(Self {
            _builtins: open(BUILTINS)?,
            library: open(LIBRARY)?,
            include: toolkit.join("include"),
        })
    }

    /// Compiles `source` for `arch`, such as `sm_90a`, with the options of CubeCL's CUDA runtime.
    ///
    /// # Errors
    /// The compiler's log.
    pub fn compile(&self, source: &str, arch: &str) -> Result<String> {
        let options = [
            format!("--gpu-architecture={arch}"),
            format!("--include-path={}", self.include.display()),
            "-lineinfo".to_owned(),
            format!("--include-path={}", self.include.join("cccl").display()),
        ]
        .map(CString::new)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .context("a folder name with a zero byte")?;
        let source = CString::new(source).context("a source with a zero byte")?;
        // SAFETY: the signatures are those of nvrtc.h, every string outlives its call, and the
        // program is destroyed once, after its last use.
        #[allow(unsafe_code)]
        unsafe {
            let create = self.library.get::<Create>(c"nvrtcCreateProgram")?;
            let destroy = self
                .library
                .get::<unsafe extern "C" fn(*mut Program) -> c_int>(c"nvrtcDestroyProgram")?;
            let mut program: Program = ptr::null_mut();
            let made = create(
                &mut program,
                source.as_ptr(),
                ptr::null(),
                0,
                ptr::null(),
                ptr::null(),
            );
            if made != 0 {
                bail!("nvrtcCreateProgram failed with {made}");
            }
            let compiled = self.compile_program(program, &options);
            destroy(&mut program);
            compiled
        }
    }

    /// # Safety
    /// `program` is alive.
    #[allow(unsafe_code)]
    unsafe fn compile_program(&self, program: Program, options: &[CString]) -> Result<String> {
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: see `compile`.
        unsafe {
            let compile = self.library.get::<Compile>(c"nvrtcCompileProgram")?;
            let status = compile(program, options.len() as c_int, options.as_ptr());
            if status != 0 {
                let log = self.text(program, c"nvrtcGetProgramLogSize", c"nvrtcGetProgramLog")?;
                let log: Vec<&str> = log.lines().take(LOG_LINES).collect();
                bail!("NVRTC error {status}\n{}", log.join("\n"));
            }
            self.text(program, c"nvrtcGetPTXSize", c"nvrtcGetPTX")
        }
    }

    /// # Safety
    /// `program` is alive; the functions are a pair of `nvrtcGet...Size` and `nvrtcGet...`.
    #[allow(unsafe_code)]
    unsafe fn text(&self, program: Program, size: &CStr, get: &CStr) -> Result<String> {
        let mut len = 0;
        // SAFETY: see `compile`; the buffer has the size that NVRTC asks for.
        unsafe {
            let status = self.library.get::<Size>(size)?(program, &mut len);
            let mut bytes = vec![0u8; len];
            if status != 0 || self.library.get::<Get>(get)?(program, bytes.as_mut_ptr().cast()) != 0
            {
                bail!("{} failed", get.to_string_lossy());
            }
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }
}
