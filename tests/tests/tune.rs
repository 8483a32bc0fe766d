//! Choosing plans by measurement: what is never measured, what is measured once, and that a measurement
//! leaves right outputs behind. Two plans of the portable tier stand for the candidates where a device has
//! no matrix units.
#![cfg(any(feature = "wgpu", feature = "cuda-runtime"))]

use std::thread;

use burn::tensor::DType;
use cubecl::{client::Client, ir::AddressType, server::Handle};
use sparse_accelerate::Span;
use sparse_accelerate_kernels::attend::{
    self, Instruction, MmaBlueprint, Plan, Tensors, Tier,
    tune::{self, Choice, Key, Tuning, Work},
};
use sparse_accelerate_tests::{
    launches::{self, Written, buffer, tensor, upload, upload_as},
    problem::{Inputs, Problem},
};

const ALWAYS: Tuning = Tuning {
    least_operations: 0.0,
};

/// A problem, its inputs, and buffers filled with NaN for its outputs.
struct Call {
    problem: Problem,
    inputs: Inputs,
    query: Handle,
    key: Handle,
    value: Handle,
    table: Handle,
    out: Handle,
    lse: Handle,
}

impl Call {
    /// `head_dim` tells the measurements of the tests of this file apart.
    fn new(client: &Client, dtype: DType, head_dim: usize, rows: usize) -> Self {
        let problem = Problem {
            slack: 5,
            spans: vec![Span::whole(rows)],
            ..Problem::whole(dtype, [4, 1, head_dim], 1)
        };
        let inputs = problem.inputs(3);
        let q: usize = problem.query_dims().iter().product();
        let table = launches::table(None, &problem.spans, 0);
        Self {
            query: upload_as(client, &inputs.query, dtype),
            key: upload_as(client, &inputs.key, dtype),
            value: upload_as(client, &inputs.value, dtype),
            table: upload(client, &table),
            out: upload_as(client, &vec![f32::NAN; q], dtype),
            lse: upload(client, &vec![f32::NAN; q / head_dim]),
            problem,
            inputs,
        }
    }

    fn request(&self) -> attend::Problem {
        launches::request(&self.problem, None)
    }

    fn work(&self) -> Work {
        Work {
            causal_pairs: self.problem.spans.iter().map(Span::causal_pairs).sum(),
            density: Some(1.0),
        }
    }

    fn tensors(&self) -> Tensors {
        let (q, k) = (self.problem.query_dims(), self.problem.key_dims());
        Tensors {
            query: tensor(&self.query, q),
            key: tensor(&self.key, k),
            value: tensor(&self.value, k),
            scales: None,
            table: buffer(&self.table, 4),
            out: tensor(&self.out, q),
            lse: buffer(&self.lse, q[0] * q[1] * q[2]),
            with_lse: true,
            scratch: None,
            address: AddressType::U32,
        }
    }

    fn launch(&self, client: &Client, plan: &Plan) {
        let elem = launches::elem(self.problem.dtype);
        attend::launch(client, &self.request(), plan, elem, self.tensors());
    }

    fn prepare(&self, client: &Client, tuning: Tuning) -> Plan {
        let elem = launches::elem(self.problem.dtype);
        let (request, work) = (self.request(), self.work());
        tune::prepare(client, &request, elem, &work, tuning, || self.tensors()).expect("plan")
    }

    /// Two plans of the portable tier, larger tile first.
    fn portable(&self, client: &Client) -> Vec<Plan> {
        let elem = launches::elem(self.problem.dtype);
        attend::candidates(&self.request(), elem, client.properties())
            .expect("plans")
            .into_iter()
            .filter(|plan| matches!(plan.tier, Tier::Unit(_)))
            .collect()
    }

    fn tuned_key(&self, plans: &[Plan]) -> Key {
        let elem = launches::elem(self.problem.dtype);
        Key::new(&self.request(), elem, &self.work(), plans)
    }

    /// Compares the output buffers with the oracle.
    fn check(&self, name: &str, client: &Client, plan: Plan) -> Written {
        let written = Written {
            plan,
            out: launches::read(client, self.out.clone(), self.problem.dtype),
            lse: launches::read(client, self.lse.clone(), DType::F32),
        };
        launches::compare(name, &self.problem, &self.inputs, None, &written);
        written
    }
}

/// The measurements of one head dimension on one device.
fn choices(client: &Client, head_dim: usize) -> Vec<Choice> {
    let of_this = |c: &Choice| c.device == client.service_id() && c.key.head_dim == head_dim;
    tune::choices().into_iter().filter(of_this).collect()
}

#[test]
fn portable_and_split_plans_are_not_measured() {
    for (name, client) in launches::clients() {
        // One row: split keys. More, in f32: the portable tier.
        for (rows, dtype) in [(1, DType::F32), (100, DType::F32)] {
            let call = Call::new(&client, dtype, 40, rows);
            let elem = launches::elem(dtype);
            let first = attend::prepare(&call.request(), elem, client.properties()).expect("plan");
            assert!(!matches!(first.tier, Tier::Mma(_)), "{name}: {first:?}");
            assert_eq!(call.prepare(&client, ALWAYS), first, "{name}");
        }
        assert_eq!(choices(&client, 40), [], "{name}");
    }
}

#[test]
fn small_problems_are_not_measured_nor_any_when_it_is_off() {
    for (name, client) in launches::clients() {
        let call = Call::new(&client, DType::F16, 48, 100);
        let elem = launches::elem(DType::F16);
        let first = attend::prepare(&call.request(), elem, client.properties()).expect("plan");
        for tuning in [Tuning::default(), Tuning::OFF] {
            assert_eq!(call.prepare(&client, tuning), first, "{name}");
        }
        assert_eq!(choices(&client, 48), [], "{name}");
    }
}

#[test]
fn a_measurement_times_every_plan_and_leaves_a_right_output() {
    for (name, client) in launches::clients() {
        let call = Call::new(&client, DType::F32, 64, 70);
        let plans = call.portable(&client);
        assert_eq!(plans.len(), 2, "{name}");
        let times = tune::measure(&client, &plans, |plan| call.launch(&client, plan));
        println!("{name}: {times:?}");
        assert_eq!(times.len(), plans.len(), "{name}");
        assert!(times.iter().all(Option::is_some), "{name}: {times:?}");
        call.check(name, &client, plans[0]);
    }
}

#[test]
fn threads_that_meet_at_one_key_measure_once() {
    for (name, client) in launches::clients() {
        let call = Call::new(&client, DType::F32, 56, 70);
        let plans = call.portable(&client);
        let key = call.tuned_key(&plans);
        let run = |plan: &Plan| call.launch(&client, plan);
        let choose = || tune::choose(&client, &key, &plans, run).expect("the device");
        let all: Vec<usize> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(choose)).collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic"))
                .collect()
        });
        let made = choices(&client, 56);
        assert_eq!(made.len(), 1, "{name}: {made:?}");
        assert!(all.iter().all(|i| *i == made[0].chosen), "{name}: {all:?}");
        assert_eq!(choose(), made[0].chosen, "{name}");
        assert_eq!(choices(&client, 56), made, "{name}: nothing new");
    }
}

/// A plan for matrix units does not compile on a device without them.
#[test]
fn a_plan_that_fails_is_left_out() {
    for (name, client) in launches::clients() {
        let call = Call::new(&client, DType::F16, 96, 70);
        let elem = launches::elem(DType::F16);
        let request = call.request();
        let has = tune::shortlist(&request, elem, &client).expect("plans");
        if !has.is_empty() {
            println!("skipped {name}: every plan compiles here");
            continue;
        }
        let portable = call.portable(&client);
        let foreign = Tier::Mma(MmaBlueprint {
            windowed: false,
            head_dim: 96,
            instruction: Instruction::Mma,
            half: true,
            planes: 4,
            m_tiles: 1,
            keys: 16,
            query_in_registers: false,
            asynchronous: false,
            late_values: false,
            tile_tokens: 128,
            indexed: false,
            columns: false,
            banded: false,
            gated: false,
        });
        let plan = Plan::new(&request, foreign, client.properties()).expect("fits in size");
        let plans = [plan, portable[0]];
        let run = |plan: &Plan| call.launch(&client, plan);
        let key = call.tuned_key(&plans);
        assert_eq!(tune::choose(&client, &key, &plans, run), Some(1), "{name}");
        let made = choices(&client, 96);
        assert_eq!(made[0].milliseconds[0], None, "{name}: {made:?}");
        call.check(name, &client, plans[1]);
    }
}

/// With matrix units: measured at the first call, not at the second, and both bitwise equal.
#[test]
fn plans_with_matrix_units_are_measured_once() {
    for (name, client) in launches::clients() {
        let dtypes = match name {
            "cuda" => vec![DType::F16, DType::BF16],
            _ => vec![DType::F16],
        };
        for dtype in dtypes {
            let call = Call::new(&client, dtype, 128, 300);
            let elem = launches::elem(dtype);
            let plans = tune::shortlist(&call.request(), elem, &client).expect("plans");
            if plans.len() < 2 {
                println!("skipped {name} {dtype:?}: fewer than two plans with matrix units");
                continue;
            }
            let of_type = || {
                let mut all = choices(&client, 128);
                all.retain(|c| c.key.elem == elem);
                all
            };
            let mut runs = Vec::new();
            for _ in 0..2 {
                let plan = call.prepare(&client, ALWAYS);
                assert!(plans.contains(&plan), "{name}: {plan:?}");
                call.launch(&client, &plan);
                runs.push(call.check(name, &client, plan));
            }
            let made = of_type();
            println!("{name}: {made:?}");
            assert_eq!(made.len(), 1, "{name}: {made:?}");
            assert_eq!(runs[0].plan, runs[1].plan, "{name}");
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&runs[0].out), bits(&runs[1].out), "{name}: output");
            assert_eq!(
                bits(&runs[0].lse),
                bits(&runs[1].lse),
                "{name}: log-sum-exp"
            );
        }
    }
}

/// Through Burn, as a model calls it, at a size that is worth a measurement.
#[test]
#[cfg(feature = "cuda-runtime")]
fn a_large_call_through_burn_is_measured_once() {
    use burn::tensor::{Distribution, Tensor, TensorData};
    use sparse_accelerate::{
        AttentionPlan, AttentionSettings, Heads, Visible, attend, diagnostics,
    };
    use sparse_accelerate_tests::{backends, oracle};

    let all = backends::with_kernels();
    let Some(backend) = all.iter().find(|b| b.name == "cuda") else {
        return println!("skipped: no CUDA device is wanted");
    };
    // 2.75e11 useful operations; a head dimension that no other test here tunes.
    let (heads, len, dim) = (32, 8192, 64);
    let device = &backend.device;
    let random = |heads| {
        let normal = Distribution::Normal(0.0, 1.0);
        Tensor::<4>::random([1, heads, len, dim], normal, device).cast(DType::BF16)
    };
    let (query, key, value) = (random(heads), random(1), random(1));
    let spans = [Span::whole(len)];
    let model = Heads::new(heads, 1, dim);
    let settings = AttentionSettings::dense();
    let plan = AttentionPlan::new(&settings, &spans, model, Visible::Causal, device).expect("plan");
    let floats = |data: TensorData| data.convert::<f32>().try_to_vec::<f32>().expect("f32");
    let run = || {
        let out =
            attend(query.clone(), &key, &value, &plan.layer(0).expect("layer")).expect("attend");
        floats(out.into_data())
    };
    let of_this = || {
        let mut plans = diagnostics::tuned_plans();
        plans.retain(|p| p.problem.contains("head_dim 64, packed heads 32"));
        plans
    };
    let first = run();
    let made = of_this();
    println!("{made:#?}");
    assert!(made.len() <= 1, "{made:?}");
    if made.is_empty() {
        println!("skipped: this device has one plan, or SPARSE_ACCELERATE_TUNE is off");
    }
    for choice in &made {
        assert!(
            choice
                .candidates
                .iter()
                .any(|(plan, _)| *plan == choice.plan)
        );
    }
    let second = run();
    assert_eq!(of_this(), made, "the second call measured again");
    let same = first
        .iter()
        .zip(&second)
        .all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same, "two calls differ");

    // A few rows of a few heads against the oracle, each as a problem of its own.
    let [query, key, value] = [&query, &key, &value].map(|t| floats(t.clone().into_data()));
    for (head, row) in [(0, 0), (5, 63), (17, 4100), (31, len - 1)] {
        let at = (head * len + row) * dim;
        let seen = (row + 1) * dim;
        let problem = Problem {
            spans: vec![Span {
                query_len: 1,
                kv_len: row + 1,
                prompt_len: len,
            }],
            ..Problem::whole(DType::BF16, [1, 1, dim], 1)
        };
        let inputs = Inputs {
            query: query[at..at + dim].to_vec(),
            key: key[..seen].to_vec(),
            value: value[..seen].to_vec(),
        };
        let sees = oracle::causal(&problem);
        let exact = oracle::exact(&problem, &inputs, &sees);
        let plain = oracle::plain(&problem, &inputs, &sees);
        let got = &first[at..at + dim];
        let name = format!("head {head}, row {row}");
        sparse_accelerate_tests::tolerance::check(&name, DType::BF16, got, &exact.out, &plain.out);
    }
}
