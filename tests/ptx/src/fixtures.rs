//! Devices as data, so that plans and kernels for them are checked on any machine.
//!
//! Properties that CubeCL's CUDA runtime would report for a compute capability: limits from NVIDIA's
//! tables, features by its rules (`cubecl-cuda`, `runtime.rs`), for both of its compilers. The WebGPU device
//! has the least that the standard allows; of it and the Metal device there are plans alone.

use cubecl::{
    cmma::MatrixLayout,
    ir::{
        AddressType, ContiguousElements, DeviceIdentity, DeviceProperties, ElemType, FloatKind,
        HardwareProperties, IntKind, MemoryDeviceProperties, MmaProperties, OpaqueType,
        TargetProperties, UIntKind, VectorSize,
        features::{MmaConfig, Plane, Tma, TypeUsage},
    },
};
use cubecl_common::profile::TimingMethod;
use cubecl_cpp::{
    cuda::{
        arch::CudaArchitecture,
        mma::{CudaCmmaCompiler, manual::contiguous_elements_cuda},
        supported_mma_combinations,
    },
    register_supported_types,
    shared::{
        CompilationOptions, CppSupportedFeatures, register_mma_features, register_wmma_features,
    },
};

const KIB: usize = 1024;
const GIB: u64 = 1 << 30;
const F16: ElemType = ElemType::Float(FloatKind::F16);
const BF16: ElemType = ElemType::Float(FloatKind::BF16);

/// CubeCL's compiler for CUDA that a build uses; it decides which features the device advertises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiler {
    /// CUDA C++ and NVRTC (feature `cuda-cpp`).
    Cpp,
    /// LLVM (the default): no asynchronous copies, no clusters.
    Llvm,
}

/// A CUDA device.
#[derive(Debug)]
pub struct Gpu {
    /// Name in tables and on the command line.
    pub name: &'static str,
    /// Compute capability, such as 86.
    pub capability: u32,
    /// Compiler of kernels for the device.
    pub compiler: Compiler,
    /// Shared memory a cube may ask for, in bytes.
    pub shared: usize,
    multiprocessors: u32,
    memory: u64,
}

/// RTX A5000 and H200 as either compiler sees them; T4, whose matrix units take whole tiles only.
pub const CUDA: [Gpu; 5] = [
    a5000("rtx-a5000", Compiler::Cpp),
    a5000("rtx-a5000-llvm", Compiler::Llvm),
    h200("h200", Compiler::Cpp),
    h200("h200-llvm", Compiler::Llvm),
    Gpu {
        name: "t4",
        capability: 75,
        compiler: Compiler::Cpp,
        shared: 64 * KIB,
        multiprocessors: 40,
        memory: 16 * GIB,
    },
];

const fn a5000(name: &'static str, compiler: Compiler) -> Gpu {
    Gpu {
        name,
        capability: 86,
        compiler,
        shared: 99 * KIB,
        multiprocessors: 64,
        memory: 24 * GIB,
    }
}

const fn h200(name: &'static str, compiler: Compiler) -> Gpu {
    Gpu {
        name,
        capability: 90,
        compiler,
        shared: 227 * KIB,
        multiprocessors: 132,
        memory: 141 * GIB,
    }
}

impl Gpu {
    /// The architecture as NVRTC and ptxas name it; from 90 on with its own instructions.
    pub fn arch(&self) -> String {
        match self.capability {
            90.. => format!("sm_{}a", self.capability),
            _ => format!("sm_{}", self.capability),
        }
    }

    /// Options of the code generator.
    pub fn options(&self) -> CompilationOptions {
        CompilationOptions {
            warp_size: 32,
            supports_features: CppSupportedFeatures {
                grid_constants: true,
                clusters: self.capability >= 90,
                fast_math: true,
                fast_tanh: true,
                elect_sync: self.capability >= 90,
                dp4a: true,
            },
            amd_wmma: None,
        }
    }

    /// Returns the properties that the device reports.
    pub fn properties(&self) -> DeviceProperties {
        let arch = CudaArchitecture {
            version: self.capability,
            tensor_cores: true,
        };
        let mut device = device(self.name, GIB.max(self.memory / 4), 512, self.hardware());
        register_supported_types(&mut device);
        device.register_opaque_type(OpaqueType::Barrier);
        let features = &mut device.features;
        features.plane.insert(Plane::Sync);
        features.plane.insert(Plane::Ops);
        features.plane.insert(Plane::NonUniformControlFlow);
        features.matmul.ldmatrix.extend([F16, BF16]);
        features.copy_async = self.capability >= 80;
        features.memory_reinterpret = true;
        features.alignment = true;
        features.device_memory_scope = true;
        if self.capability >= 80 {
            device.register_type_usage(ElemType::Float(FloatKind::TF32), TypeUsage::Conversion);
        }
        let features = &mut device.features;
        if self.capability >= 90 {
            features.tma.insert(Tma::Base);
            features.cube_cluster = true;
            features.matmul.stmatrix.extend([F16, BF16]);
            device.register_opaque_type(OpaqueType::TensorMap);
        }
        let cmma = CudaCmmaCompiler::Cpp.supported_cmma_combinations(&arch);
        register_wmma_features(cmma, &mut device);
        register_mma_features(supported_mma_combinations(&arch), &mut device);
        if self.compiler == Compiler::Llvm {
            narrow_to_llvm(&mut device);
        }
        device
    }

    fn hardware(&self) -> HardwareProperties {
        HardwareProperties {
            max_bindings: 1024,
            max_shared_memory_size: self.shared,
            max_cube_count: (i32::MAX as u32, 65_535, 65_535),
            max_units_per_cube: 1024,
            max_cube_dim: (1024, 1024, 64),
            num_streaming_multiprocessors: Some(self.multiprocessors),
            num_tensor_cores: Some(if self.capability == 75 { 8 } else { 4 }),
            min_tensor_cores_dim: Some(8),
            max_vector_size: VectorSize::MAX,
            ..hardware(32, 32)
        }
    }
}

/// Name of the WebGPU device in tables.
pub const WEBGPU: &str = "webgpu-laptop";

/// A laptop's WebGPU device with `shader-f16` and the limits that every device has: 16 KiB of shared
/// memory, 256 units, no planes.
pub fn webgpu() -> DeviceProperties {
    let hardware = HardwareProperties {
        max_bindings: 7,
        max_shared_memory_size: 16 * KIB,
        max_cube_count: (65_535, 65_535, 65_535),
        max_units_per_cube: 256,
        max_cube_dim: (256, 256, 64),
        max_vector_size: 4,
        ..hardware(8, 128)
    };
    let mut device = device(WEBGPU, 128 << 20, 256, hardware);
    device.register_address_type(AddressType::U32);
    for elem in [
        ElemType::Index,
        ElemType::UInt(UIntKind::U32),
        ElemType::Int(IntKind::I32),
        ElemType::Float(FloatKind::F32),
        F16,
        ElemType::Bool,
    ] {
        device.register_type_usage(elem, TypeUsage::all());
    }
    device
}

/// Name of the Metal device in tables.
pub const METAL: &str = "apple-m2";

/// A laptop's Metal device by CubeCL's own compiler for it: the WebGPU device's types, 32 KiB of shared
/// memory, `simdgroup` matrices of 8 x 8.
pub fn metal() -> DeviceProperties {
    let hardware = HardwareProperties {
        max_bindings: 31,
        max_shared_memory_size: 32 * KIB,
        max_cube_count: (65_535, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 1024),
        max_vector_size: 4,
        ..hardware(32, 32)
    };
    let mut device = DeviceProperties {
        hardware,
        ..webgpu()
    };
    device.features.plane.insert(Plane::Ops);
    device.features.plane.insert(Plane::Sync);
    for sum in [F16, ElemType::Float(FloatKind::F32)] {
        device.features.matmul.cmma.insert(MmaConfig {
            a_type: F16,
            b_type: F16,
            cd_type: sum,
            m: 8,
            n: 8,
            k: 8,
        });
    }
    device
}

/// Guarantees of every CUDA device about its matrix instructions.
pub fn target() -> TargetProperties {
    TargetProperties {
        mma: MmaProperties {
            register_size_bits: 32,
            const_plane_size: 32,
            register_layout_a: MatrixLayout::RowMajor,
            register_layout_b: MatrixLayout::ColMajor,
            register_layout_acc: MatrixLayout::RowMajor,
            register_duplication_a: 1,
            register_duplication_b: 1,
            register_duplication_acc: 1,
            contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
        },
    }
}

fn device(name: &str, page: u64, alignment: u64, hardware: HardwareProperties) -> DeviceProperties {
    DeviceProperties::new(
        Default::default(),
        MemoryDeviceProperties::new(page, alignment),
        hardware,
        TimingMethod::Device,
        DeviceIdentity {
            name: name.to_owned(),
            fingerprint: name.to_owned(),
            physical: None,
        },
    )
}

/// Limits of no device yet: planes of these sizes and nothing else.
fn hardware(plane_min: u32, plane_max: u32) -> HardwareProperties {
    HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: plane_min,
        plane_size_max: plane_max,
        max_bindings: 0,
        max_shared_memory_size: 0,
        max_cube_count: (0, 0, 0),
        max_units_per_cube: 0,
        max_cube_dim: (0, 0, 0),
        num_streaming_multiprocessors: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: 1,
        cube_mma_reserved_shared_memory: 0,
    }
}

/// Takes away what the LLVM compiler does not lower, of what these kernels ask for (the rules are
/// those of `cubecl-llvm`, `lowered_features.rs`).
fn narrow_to_llvm(device: &mut DeviceProperties) {
    let f32 = ElemType::Float(FloatKind::F32);
    let features = &mut device.features;
    let float = |a: ElemType, b: ElemType| (a == F16 || a == BF16) && a == b;
    features.matmul.cmma.retain(|c| {
        float(c.a_type, c.b_type) && (c.cd_type == f32 || (c.a_type == F16 && c.cd_type == F16))
    });
    features
        .matmul
        .mma
        .retain(|c| float(c.a_type, c.b_type) && c.cd_type == f32);
    features.tma = Default::default();
    features.cube_cluster = false;
    features.copy_async = false;
    features.types.opaque.remove(&OpaqueType::TensorMap);
    features.types.opaque.remove(&OpaqueType::Barrier);
}
