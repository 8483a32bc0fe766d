//! A CubeCL device that runs nothing: a launch turns into the kernel's CUDA C++ source.
//!
//! Kernels that a launch would compile on a GPU are compiled here by the same code generator with the
//! same options; only the driver is missing. Buffers have a size and no memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cubecl::{
    CubeKernel,
    client::Client,
    define_kernel,
    future::DynFut,
    server::{
        BufferBinding, CopyDescriptor, CubeCount, IoError, KernelArguments, ProfileError,
        ProfilingToken, Server, ServerCommunication, ServerError, ServerStorage, ServerUtilities,
    },
};
use cubecl_common::{
    bytes::Bytes,
    device::{DeviceId, DeviceService, ServiceId},
    profile::ProfileDuration,
};
use cubecl_cpp::{shared::CompilationOptions, shared::CppCompiler, target::Cuda};
use cubecl_environment::{backtrace::BackTrace, stream::StreamId};
use cubecl_server::{
    allocator::PitchedMemoryLayoutPolicy,
    dry_run::LaunchMode,
    id::KernelId,
    kernel::CompiledKernel,
    logging::ServerLogger,
    memory_management::{ManagedMemoryHandle, MemoryAllocationMode, StreamMemoryReport},
    storage::{ComputeStorage, ManagedResource, StorageHandle, StorageId},
};

use crate::fixtures::{self, Gpu};

/// A launched kernel, as source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Name of the entry point.
    pub name: String,
    /// CUDA C++.
    pub source: String,
    /// Shared memory that the launch asks for, in bytes.
    pub dynamic_shared: usize,
    /// Units of a cube.
    pub cube: (u32, u32, u32),
}

type Launches = Arc<Mutex<Vec<Result<Kernel, String>>>>;

/// Kernels that were generated before, for devices of one compute capability.
pub type Known = Arc<Mutex<HashMap<KernelId, Kernel>>>;

/// A client of such a device, and what was launched on it.
#[allow(missing_debug_implementations)] // CubeCL's client has none
pub struct Recorder {
    client: Client,
    launches: Launches,
}

impl Recorder {
    /// A device like `gpu`. `index` tells the devices of one process apart.
    ///
    /// # Panics
    /// When `index` is taken.
    pub fn new(index: u16, gpu: &Gpu, known: Known) -> Self {
        let id = DeviceId {
            type_id: 0,
            index_id: index,
        };
        let server = RecordingServer::new(id, gpu, known);
        let launches = server.launches.clone();
        Self {
            client: Client::init(id, server),
            launches,
        }
    }

    /// Returns the client that kernels are launched on.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for the launches so far and takes them; an error is that of the code generator.
    pub fn take(&self) -> Vec<Result<Kernel, String>> {
        if let Err(error) = self.client.flush() {
            return vec![Err(error.to_string())];
        }
        std::mem::take(&mut lock(&self.launches))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct RecordingServer {
    utilities: Arc<ServerUtilities>,
    options: CompilationOptions,
    launches: Launches,
    known: Known,
}

impl RecordingServer {
    fn new(id: DeviceId, gpu: &Gpu, known: Known) -> Self {
        let properties = gpu.properties();
        let alignment = properties.memory.alignment as usize;
        let (utilities, _) = ServerUtilities::init(
            ServiceId::of::<Self>(id),
            "recorder",
            properties,
            fixtures::target(),
            Arc::new(ServerLogger::default()),
            PitchedMemoryLayoutPolicy::new(alignment),
        );
        Self {
            utilities: Arc::new(utilities),
            options: gpu.options(),
            launches: Launches::default(),
            known,
        }
    }

    fn compile(&self, kernel: &dyn CubeKernel) -> Result<Kernel, String> {
        // What a kernel is, its identity says: blueprint, element type, cube, index width.
        let id = kernel.id();
        if let Some(kernel) = lock(&self.known).get(&id) {
            return Ok(kernel.clone());
        }
        let definition = define_kernel(kernel).map_err(|error| error.to_string())?;
        let mut compiler = CppCompiler::<Cuda>::default();
        let compiled = CompiledKernel::compile(kernel, definition, &mut compiler, &self.options)
            .map_err(|error| error.to_string())?;
        let kernel = Kernel {
            name: compiled.entrypoint_name,
            source: compiled.source,
            dynamic_shared: compiled.repr.map_or(0, |repr| repr.shared_memory_size),
            cube: compiled.cube_dim.into(),
        };
        lock(&self.known).insert(id, kernel.clone());
        Ok(kernel)
    }
}

fn none<T>(what: &str) -> Result<T, ServerError> {
    Err(ServerError::Generic {
        reason: format!("the recorder has no {what}"),
        backtrace: BackTrace::capture(),
    })
}

impl DeviceService for RecordingServer {
    fn init(id: DeviceId) -> Self {
        Self::new(id, &fixtures::CUDA[0], Known::default())
    }

    fn utilities(&self) -> Arc<dyn std::any::Any + Send + Sync> {
        self.utilities.clone()
    }
}

impl ServerCommunication for RecordingServer {}

impl Server for RecordingServer {
    fn initialize_memory(
        &mut self,
        _: ManagedMemoryHandle,
        _: u64,
        _: StreamId,
    ) -> Result<(), ServerError> {
        Ok(())
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities> {
        self.utilities.clone()
    }

    fn read(
        &mut self,
        _: Vec<CopyDescriptor>,
        _: StreamId,
    ) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        Box::pin(async { none("memory to read") })
    }

    fn write(&mut self, _: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {}

    fn sync(&mut self, _: Vec<BufferBinding>, _: StreamId) -> DynFut<Result<(), ServerError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&mut self, _: Vec<BufferBinding>, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    // The trait's method is unsafe, since a real launch may read out of bounds.
    #[allow(unsafe_code)]
    unsafe fn launch(
        &mut self,
        kernel: Box<dyn CubeKernel>,
        _: CubeCount,
        _: KernelArguments,
        _: StreamId,
        _: LaunchMode,
    ) {
        let launched = self.compile(&*kernel);
        lock(&self.launches).push(launched);
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_report(&mut self, _: StreamId) -> Option<StreamMemoryReport> {
        None
    }

    fn memory_cleanup(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn start_profile(&mut self, _: StreamId) -> Result<ProfilingToken, ServerError> {
        none("clock")
    }

    fn end_profile(
        &mut self,
        _: StreamId,
        _: ProfilingToken,
    ) -> Result<ProfileDuration, ProfileError> {
        Err(ProfileError::NotRegistered {
            backtrace: BackTrace::capture(),
        })
    }

    fn allocation_mode(&mut self, _: MemoryAllocationMode, _: StreamId) {}
}

impl ServerStorage for RecordingServer {
    type Storage = NoMemory;

    fn get_resource(
        &mut self,
        _: BufferBinding,
        _: StreamId,
    ) -> Result<ManagedResource<()>, ServerError> {
        none("memory to point at")
    }
}

/// The memory of a device that has none.
#[derive(Debug)]
struct NoMemory;

impl ComputeStorage for NoMemory {
    type Resource = ();

    fn alignment(&self) -> usize {
        1
    }

    fn get(&mut self, _: &StorageHandle) -> Result<(), IoError> {
        Ok(())
    }

    fn alloc(&mut self, _: u64) -> Result<StorageHandle, IoError> {
        Err(IoError::UnsupportedIoOperation {
            backtrace: BackTrace::capture(),
        })
    }

    fn dealloc(&mut self, _: StorageId) {}

    fn flush(&mut self) {}

    fn bytes_allocated(&self) -> u64 {
        0
    }
}
