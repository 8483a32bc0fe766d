//! A device's handle of the library, and its plans.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use burn::backend::Device as _;
use cubecl::{
    device::CudaDevice,
    device_handle::{CallError, DeviceHandle},
};
use cudarc::driver::{DriverError, result, sys};

use super::{
    api::{Api, Raw, ok},
    choose,
    launch::{self, Product, Server},
    library,
    plan::{Plan, Problem},
};

/// Plans kept of one device; a prompt of a new length makes a few.
const MOST_PLANS: usize = 4096;

/// State that products on one CUDA device share.
#[derive(Debug)]
pub(crate) struct Engine {
    api: &'static Api,
    handle: Raw,
    context: sys::CUcontext,
    description: String,
    tries: usize,
    /// `None` for problems the library refused.
    plans: Mutex<HashMap<Problem, Option<Arc<Plan>>>>,
}

// SAFETY: the library allows a handle in several threads, and a context is a name.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

type Engines = BTreeMap<usize, Result<Arc<Engine>, Arc<str>>>;

/// The engine of a CUDA device, made at first call, or why there is none; the reason is warned of once.
pub(crate) fn engine(index: usize) -> Result<Arc<Engine>, Arc<str>> {
    static ENGINES: Mutex<Engines> = Mutex::new(BTreeMap::new());
    let make = || {
        // On the device's thread, whose current context is the device's.
        let made = server(index).submit_blocking(move |_| Engine::new(index));
        let made = made.unwrap_or_else(|error| Err(panicked(&error)));
        made.map(Arc::new).map_err(|reason| {
            tracing::warn!("linear on cuda:{index}: {reason}; Burn's product runs instead");
            reason.into()
        })
    };
    lock(&ENGINES).entry(index).or_insert_with(make).clone()
}

fn server(index: usize) -> DeviceHandle<Server> {
    DeviceHandle::new(CudaDevice::new(index).to_id())
}

fn panicked(error: &CallError) -> String {
    format!("the device's thread failed: {error:?}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing below leaves a map half written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    fn new(index: usize) -> Result<Self, String> {
        let (context, driver) = context(index).map_err(|e| format!("CUDA driver: {e}"))?;
        let found = library::library(driver)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle, for the context made current by `context`.
        let created = ok("cublasLtCreate", unsafe { (found.api.create)(&mut handle) });
        created.map_err(|error| format!("{}: {error}", found.path))?;
        // SAFETY: asks nothing.
        let version = unsafe { (found.api.version)() };
        let (major, minor) = (version / 10_000, version / 100 % 100);
        Ok(Self {
            api: &found.api,
            handle,
            context,
            description: format!("version {major}.{minor}.{}, {}", version % 100, found.path),
            tries: choose::tries(),
            plans: Mutex::default(),
        })
    }

    /// Version and file of the library.
    pub(crate) fn description(&self) -> &str {
        &self.description
    }

    pub(super) fn api(&self) -> &'static Api {
        self.api
    }

    pub(super) fn handle(&self) -> Raw {
        self.handle
    }

    /// Makes the device's context current on this thread.
    pub(super) fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: a primary context retained for as long as the process runs.
        unsafe { result::ctx::set_current(self.context) }
    }

    /// The plan of a problem; `None`, and one warning, where the library has no algorithm.
    pub(super) fn plan(self: &Arc<Self>, index: usize, problem: Problem) -> Option<Arc<Plan>> {
        if let Some(known) = lock(&self.plans).get(&problem) {
            return known.clone();
        }
        let engine = Arc::clone(self);
        let made = server(index).submit_blocking(move |_| {
            engine.enter().map_err(|error| error.to_string())?;
            Plan::new(engine.api, engine.handle, &problem, engine.tries)
                .map_err(|error| error.to_string())
        });
        let made = match made.unwrap_or_else(|error| Err(panicked(&error))) {
            Ok(plan) => Some(Arc::new(plan)),
            Err(reason) => {
                tracing::warn!("linear: {problem:?}: {reason}; Burn's product runs instead");
                None
            }
        };
        let mut plans = lock(&self.plans);
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.insert(problem, made.clone());
        made
    }

    /// Submits a product to the device's thread.
    pub(super) fn submit(self: Arc<Self>, index: usize, product: Product) {
        launch::submit(&server(index), self, product);
    }
}

/// The primary context of a device, made current, and the driver's version.
fn context(index: usize) -> Result<(sys::CUcontext, i32), DriverError> {
    let mut driver = 0;
    // SAFETY: `driver` outlives the call; the context is retained for good, as CubeCL does.
    unsafe {
        sys::cuDriverGetVersion(&mut driver).result()?;
        let device = result::device::get(index as i32)?;
        let context = result::primary_ctx::retain(device)?;
        result::ctx::set_current(context)?;
        Ok((context, driver))
    }
}
