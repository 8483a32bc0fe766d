#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]
use cubecl::{client::Client, ir::*, prelude::*, server::Handle};
use half::bf16;
use sparse_accelerate_kernels::attend::{self, *};

fn up<T: bytemuck::Pod>(client: &Client, v: &[T]) -> Handle {
    client.create_from_slice(bytemuck::cast_slice(v))
}
fn tensor(handle: &Handle, shape: [usize; 4]) -> TensorArg {
    let strides = [
        shape[1] * shape[2] * shape[3],
        shape[2] * shape[3],
        shape[3],
        1,
    ];
    unsafe { TensorArg::from_raw_parts(handle.clone(), strides.into(), shape.into()) }
}
fn buffer(handle: &Handle, len: usize) -> BufferArg {
    unsafe { BufferArg::from_raw_parts(handle.clone(), len) }
}
fn rnd(seed: u64, n: usize) -> Vec<bf16> {
    let mut x = seed.wrapping_mul(0x9E3779B97F4A7C15) | 1;
    (0..n)
        .map(|_| {
            let mut s = 0.0f32;
            for _ in 0..4 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                s += (x >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            }
            bf16::from_f32(s * 1.7320508)
        })
        .collect()
}
fn main() {
    // probe S D [planes,m,keys,qreg,tokens]...
    let args: Vec<String> = std::env::args().collect();
    let len: usize = args[1].parse().unwrap();
    let d: usize = args[2].parse().unwrap();
    let (hq, hk) = (32, 8);
    let client = cubecl::Device::Cuda(Default::default()).client();
    let elem = ElemType::Float(FloatKind::BF16);
    println!("copy_async {}", client.properties().features.copy_async);
    let (q, k, v) = (
        rnd(1, hq * len * d),
        rnd(2, hk * len * d),
        rnd(3, hk * len * d),
    );
    let (qh, kh, vh) = (up(&client, &q), up(&client, &k), up(&client, &v));
    let table = vec![len as u32, len as u32, u32::MAX, 0];
    let th = up(&client, &table);
    let nan = vec![0xffffu16; hq * len * d];
    for spec in &args[3..] {
        let p: Vec<usize> = spec.split(',').map(|x| x.parse().unwrap()).collect();
        let problem = Problem {
            batch: 1,
            heads: hq,
            kv_heads: hk,
            rows: len,
            head_dim: d,
            scale: 1.0 / (d as f32).sqrt(),
            index: None,
        };
        let tier = if p.len() > 1 {
            Tier::Mma(MmaBlueprint {
                head_dim: d,
                planes: p[0],
                m_tiles: p[1],
                keys: p[2],
                query_in_registers: p[3] == 1,
                asynchronous: client.properties().features.copy_async,
                tile_tokens: p[4],
                indexed: false,
                columns: false,
                banded: false,
            })
        } else {
            attend::prepare(&problem, elem, client.properties())
                .unwrap()
                .tier
        };
        let plan = match Plan::new(&problem, tier, client.properties()) {
            Ok(p) => p,
            Err(e) => {
                println!("{spec}: {e}");
                continue;
            }
        };
        let oh = up(&client, &nan);
        let lh = client.empty(hq * len * 4);
        let go = || {
            attend::launch(
                &client,
                &problem,
                &plan,
                elem,
                Tensors {
                    query: tensor(&qh, [1, hq, len, d]),
                    key: tensor(&kh, [1, hk, len, d]),
                    value: tensor(&vh, [1, hk, len, d]),
                    table: buffer(&th, 4),
                    out: tensor(&oh, [1, hq, len, d]),
                    lse: buffer(&lh, hq * len),
                    with_lse: true,
                    address: AddressType::U32,
                },
            )
        };
        let t = std::time::Instant::now();
        go();
        let got = match client.read_one(oh.clone()) {
            Ok(b) => b,
            Err(e) => {
                println!("{spec}: {e:?}");
                continue;
            }
        };
        let first = t.elapsed();
        if std::env::var("FAKE").is_ok() {
            println!("{spec}: compiled {first:?}");
            continue;
        }
        let got: &[bf16] = bytemuck::cast_slice(&got);
        let lse = client.read_one(lh.clone()).unwrap();
        let lse: &[f32] = bytemuck::cast_slice(&lse);
        let (mut num, mut den, mut le) = (0f64, 0f64, 0f64);
        for h in [0, 5, 31] {
            for r in 0..24 {
                let i = r * (len - 1) / 23;
                let g = h / (hq / hk);
                let s: Vec<f64> = (0..=i)
                    .map(|j| {
                        (0..d)
                            .map(|e| {
                                q[(h * len + i) * d + e].to_f64()
                                    * k[(g * len + j) * d + e].to_f64()
                            })
                            .sum::<f64>()
                            / (d as f64).sqrt()
                    })
                    .collect();
                let m = s.iter().cloned().fold(f64::MIN, f64::max);
                let z: f64 = s.iter().map(|x| (x - m).exp()).sum();
                le = le.max((lse[h * len + i] as f64 - (m + z.ln())).abs());
                for e in 0..d {
                    let o: f64 = (0..=i)
                        .map(|j| (s[j] - m).exp() * v[(g * len + j) * d + e].to_f64())
                        .sum::<f64>()
                        / z;
                    let x = got[(h * len + i) * d + e].to_f64();
                    num += (x - o).powi(2);
                    den += o * o;
                }
            }
        }
        let nans = got.iter().filter(|x| x.is_nan()).count();
        let mut times = vec![];
        for _ in 0..8 {
            let prof = client.profile(
                || {
                    for _ in 0..1 {
                        go();
                    }
                },
                "x",
            );
            match prof {
                Ok((_, p)) => {
                    let t = cubecl::future::block_on(p.resolve());
                    times.push(t.unwrap().duration().as_secs_f64());
                }
                Err(e) => println!("{e:?}"),
            }
        }
        times.sort_by(f64::total_cmp);
        let flop = 4.0 * d as f64 * hq as f64 * (len as f64 * (len as f64 + 1.0) / 2.0);
        println!(
            "{spec}: first {first:?} err {:.6} lse {le:.2e} nan {nans} median {:.3} ms {:.1} TFLOP/s min {:.3}",
            (num / den).sqrt(),
            times[4] * 1e3,
            flop / times[4] / 1e12,
            times[0] * 1e3
        );
    }
}
