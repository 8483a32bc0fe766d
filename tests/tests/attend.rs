//! Attention on every backend against the f64 oracle: shapes, types, groups, ragged batches, layouts,
//! prefix offsets, all patterns of the index. Key and value caches are longer than the sequences and
//! NaN beyond them; query padding is NaN: reading what must not be read fails.

use burn::tensor::DType;
use sparse_accelerate::{
    AttentionPlan, AttentionSettings, FixedBlocks, Pattern, Span, Triangular, attend,
    attend_with_lse, index,
};
use sparse_accelerate_tests::{
    backends::{self, Backend},
    oracle,
    problem::{Layout, Problem, floats},
    tolerance,
};

fn check(name: &str, backend: &Backend, problem: &Problem, plan: &AttentionPlan) {
    let name = format!(
        "{name}/{:?}/hd{}/h{}kv{}/{}",
        problem.dtype, problem.head_dim, problem.heads, problem.kv_heads, backend.name
    );
    let inputs = problem.inputs(7);
    let device = &backend.device;
    let query = problem.tensor(&inputs.query, problem.query_dims(), problem.layout, device);
    let key = problem.tensor(&inputs.key, problem.key_dims(), Layout::Contiguous, device);
    let value = problem.tensor(&inputs.value, problem.key_dims(), problem.layout, device);

    let group = problem.heads / problem.kv_heads;
    let sees = |b: usize, h: usize, i: usize, j: usize| match plan.index() {
        None => j <= problem.spans[b].offset() + i,
        Some(index) => {
            let head = match index.heads() {
                n if n == problem.heads => h,
                n => h / group * n / problem.kv_heads,
            };
            index.sees(b, head, i, j)
        }
    };
    let exact = oracle::exact(problem, &inputs, &sees);
    let plain = oracle::plain(problem, &inputs, &sees);

    let layer = plan.layer(0).expect(&name);
    let (out, lse) = attend_with_lse(query.clone(), &key, &value, &layer).expect(&name);
    assert_eq!(out.dims(), problem.query_dims(), "{name}");
    let (out, lse) = (floats(out), floats(lse));
    tolerance::check(
        &format!("{name}/out"),
        problem.dtype,
        &out,
        &exact.out,
        &plain.out,
    );
    tolerance::check(
        &format!("{name}/lse"),
        problem.dtype,
        &lse,
        &exact.lse,
        &plain.lse,
    );

    let alone = floats(attend(query, &key, &value, &layer).expect(&name));
    assert_eq!(out, alone, "{name}: with and without log-sum-exp");
}

fn dense(problem: &Problem, backend: &Backend) -> AttentionPlan {
    problem.plan(&AttentionSettings::dense(), &backend.device)
}

fn triangular(problem: &Problem, backend: &Backend, t: Triangular) -> AttentionPlan {
    let settings = AttentionSettings::sparse(Pattern::Triangular(t));
    problem.plan(&settings, &backend.device)
}

#[test]
fn dense_head_dims_and_types() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            for head_dim in [32, 40, 64, 80, 96, 128, 256] {
                let problem = Problem::whole(dtype, [2, 1, head_dim], 67);
                check("dense", &backend, &problem, &dense(&problem, &backend));
            }
        }
    }
}

#[test]
fn dense_every_head_dim_that_is_a_multiple_of_8() {
    for backend in backends::all().into_iter().filter(|b| b.name == "flex") {
        for head_dim in (32..=256).step_by(8) {
            let problem = Problem::whole(DType::F32, [2, 2, head_dim], 9);
            check("dense", &backend, &problem, &dense(&problem, &backend));
        }
    }
}

#[test]
fn dense_groups() {
    for backend in backends::all() {
        for group in [1, 3, 4, 7, 8] {
            let problem = Problem::whole(DType::F32, [2 * group, 2, 32], 70);
            check("groups", &backend, &problem, &dense(&problem, &backend));
        }
    }
}

#[test]
fn dense_lengths() {
    for backend in backends::all() {
        for len in [1, 2, 31, 32, 33, 63, 64, 65, 127, 129, 257] {
            let problem = Problem::whole(DType::F32, [2, 1, 32], len);
            check(
                &format!("len{len}"),
                &backend,
                &problem,
                &dense(&problem, &backend),
            );
        }
    }
}

fn ragged(dtype: DType) -> Problem {
    let span = |query_len, kv_len, prompt_len| Span {
        query_len,
        kv_len,
        prompt_len,
    };
    Problem {
        spans: vec![span(1, 130, 129), span(70, 70, 90), span(33, 160, 160)],
        slack: 5,
        layout: Layout::Swapped,
        ..Problem::whole(dtype, [6, 2, 40], 1)
    }
}

#[test]
fn ragged_batch_with_prefixes_in_a_longer_cache() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let problem = ragged(dtype);
            check(
                "ragged/dense",
                &backend,
                &problem,
                &dense(&problem, &backend),
            );
            let t = Triangular {
                sink: 5,
                window: 21,
                last: 7,
            };
            let plan = triangular(&problem, &backend, t);
            check("ragged/triangular", &backend, &problem, &plan);
        }
    }
}

#[test]
fn triangular_windows_sinks_and_last_rows() {
    for backend in backends::all() {
        for (sink, window, last) in [
            (0, 1, 0),
            (1, 1, 1),
            (16, 64, 0),
            (17, 63, 9),
            (100, 10, 64),
        ] {
            let problem = Problem::whole(DType::F32, [4, 2, 32], 300);
            let t = Triangular { sink, window, last };
            let plan = triangular(&problem, &backend, t);
            assert!(plan.decision().density < Some(1.0));
            check(
                &format!("tri{sink}-{window}-{last}"),
                &backend,
                &problem,
                &plan,
            );
        }
    }
}

#[test]
fn full_index_is_dense() {
    for backend in backends::all() {
        let problem = Problem::whole(DType::F32, [4, 2, 64], 150);
        let index = index::full(&problem.spans).expect("index");
        assert_eq!(index.density(), 1.0);
        let plan =
            AttentionPlan::with_index(index, problem.model_heads(), &backend.device).expect("plan");
        check("full", &backend, &problem, &plan);
    }
}

#[test]
fn columns_and_slashes_per_index_head() {
    for backend in backends::all() {
        for heads in [1, 2, 6] {
            let problem = Problem::whole(DType::F32, [6, 2, 48], 330);
            let columns: Vec<Vec<usize>> = (0..heads)
                .map(|h| (0..250).step_by(7 + h).collect())
                .collect();
            let offsets: Vec<Vec<usize>> =
                (0..heads).map(|h| vec![0, 30 + 11 * h, 200, 201]).collect();
            let index = index::interval_slash(&problem.spans, &columns, &offsets).expect("index");
            let plan = AttentionPlan::with_index(index, problem.model_heads(), &backend.device)
                .expect("plan");
            check(&format!("slash{heads}"), &backend, &problem, &plan);
        }
    }
}

#[test]
fn clusters_of_blocks() {
    for backend in backends::all() {
        let problem = Problem::whole(DType::F32, [4, 2, 64], 400);
        let keep = |h: usize, q: usize, k: usize| (q * 7 + k * 3 + h).is_multiple_of(3);
        let index = index::block_cluster(&problem.spans, 2, 64, keep).expect("index");
        let plan =
            AttentionPlan::with_index(index, problem.model_heads(), &backend.device).expect("plan");
        check("cluster", &backend, &problem, &plan);
    }
}

#[test]
fn fixed_blocks_per_kv_head_in_chunks() {
    for backend in backends::all() {
        let span = Span {
            query_len: 200,
            kv_len: 200 + 256,
            prompt_len: 600,
        };
        let problem = Problem {
            spans: vec![span],
            ..Problem::whole(DType::F32, [4, 2, 64], 200)
        };
        let pattern = Pattern::FixedBlocks(FixedBlocks {
            heads: 2,
            block: 64,
            density: 0.4,
            seed: 5,
        });
        let settings = AttentionSettings::sparse(pattern);
        let plan = problem.plan(&settings, &backend.device);
        let density = plan.decision().density.expect("of an index");
        assert!((0.35..0.5).contains(&density), "{density}");
        check("fixed", &backend, &problem, &plan);
    }
}

#[test]
fn large_logits() {
    for backend in backends::all() {
        for &dtype in &backend.dtypes {
            let problem = Problem {
                magnitude: 8.0,
                ..Problem::whole(dtype, [2, 2, 64], 90)
            };
            check("magnitude8", &backend, &problem, &dense(&problem, &backend));
        }
    }
}

#[test]
fn two_runs_are_bitwise_equal() {
    for backend in backends::all() {
        let problem = ragged(DType::F32);
        let inputs = problem.inputs(3);
        let plan = dense(&problem, &backend);
        let run = || {
            let at = |v: &[f32], dims| problem.tensor(v, dims, Layout::Contiguous, &backend.device);
            let key = at(&inputs.key, problem.key_dims());
            let value = at(&inputs.value, problem.key_dims());
            let query = at(&inputs.query, problem.query_dims());
            floats(attend(query, &key, &value, &plan.layer(0).expect("layer")).expect("attend"))
        };
        assert_eq!(run(), run(), "{}", backend.name);
    }
}

#[test]
fn module_attends_whole_prompts() {
    use sparse_accelerate::SparseAttentionConfig;
    for backend in backends::all() {
        let problem = Problem::whole(DType::F32, [4, 2, 32], 200);
        let inputs = problem.inputs(5);
        let at = |v: &[f32], dims| problem.tensor(v, dims, Layout::Contiguous, &backend.device);
        let key = at(&inputs.key, problem.key_dims());
        let value = at(&inputs.value, problem.key_dims());
        let query = at(&inputs.query, problem.query_dims());
        let pattern = Triangular {
            sink: 8,
            window: 30,
            last: 4,
        };
        let settings = AttentionSettings::sparse(Pattern::Triangular(pattern));
        let module = SparseAttentionConfig::new(settings, 0).init();
        let attended = module
            .forward(query.clone(), &key, &value)
            .expect("forward");
        let plan = triangular(&problem, &backend, pattern);
        assert_eq!(attended.decision, *plan.decision());
        assert!(attended.record.is_none());
        let direct = attend(query, &key, &value, &plan.layer(0).expect("layer")).expect("attend");
        assert_eq!(floats(attended.output), floats(direct));
    }
}
