//! Times of kernels whose work is known: dense, random blocks, gathered columns.

use burn::tensor::{Device, Distribution, Tensor};
use sparse_accelerate::{
    AttentionPlan, AttentionSettings, FixedBlocks, Heads, Pattern, Span, Visible, attend,
    index::{QUERY_TILE, TileIndex, interval_slash},
};

use super::{CalibrateSettings, fit::Sample};
use crate::speed::{SpeedError, element, median, timing::Batches};

/// Densities of random blocks, and tokens of a block.
const DENSITIES: [f64; 4] = [0.05, 0.1, 0.2, 0.5];
const BLOCK: usize = 128;
/// Gathered columns of every query tile; half as many keys must be there.
const COLUMNS: [usize; 2] = [128, 512];
const SEED: u64 = 1;

/// Times every sample at every length.
pub(super) fn measure(
    device: &Device,
    settings: &CalibrateSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Sample>, SpeedError> {
    let mut samples = Vec::new();
    for length in &settings.lengths {
        let layer = Layer::new(device, settings, *length);
        for (name, plan) in plans(device, settings, *length)? {
            let ms = layer.time(device, &plan, settings.runs)?;
            progress(&format!("{name} at {length} tokens: {ms:.3} ms"));
            let work = work(&plan, settings.heads, *length);
            samples.push(Sample { work, ms });
        }
    }
    Ok(samples)
}

fn plans(
    device: &Device,
    settings: &CalibrateSettings,
    length: usize,
) -> Result<Vec<(String, AttentionPlan)>, SpeedError> {
    let spans = [Span::whole(length)];
    let heads = Heads::new(settings.heads, settings.kv_heads, settings.head_dim);
    let plan = |settings| AttentionPlan::new(&settings, &spans, heads, Visible::Causal, device);
    let dense = plan(AttentionSettings::dense())?;
    let mut plans = vec![("dense".to_owned(), dense)];
    for density in DENSITIES {
        let blocks = AttentionSettings::sparse(Pattern::FixedBlocks(FixedBlocks {
            heads: settings.kv_heads,
            block: BLOCK,
            density,
            seed: SEED,
        }));
        plans.push((format!("blocks of density {density}"), plan(blocks)?));
    }
    for count in COLUMNS.into_iter().filter(|count| 2 * count <= length) {
        let stride = length / count;
        let columns: Vec<Vec<usize>> = (0..settings.kv_heads)
            .map(|head| (0..count).map(|i| i * stride + head % stride).collect())
            .collect();
        let diagonal = vec![vec![0]; settings.kv_heads];
        let index = interval_slash(&spans, &columns, &diagonal)?;
        let plan = AttentionPlan::with_index(index, heads, device)?;
        plans.push((format!("{count} columns"), plan));
    }
    Ok(plans)
}

/// Counts the work of a plan for so many query heads.
fn work(plan: &AttentionPlan, heads: usize, length: usize) -> [f64; 4] {
    let Some(index) = plan.index() else {
        let tiles = length.div_ceil(QUERY_TILE) as f64;
        return [heads as f64 * tiles * (tiles + 1.0) / 2.0, 0.0, 0.0, 0.0];
    };
    let [tiles, columns, rows] = index_work(index);
    let each = heads as f64 / index.heads() as f64;
    [0.0, each * tiles, each * columns, each * rows]
}

/// Tiles of ranges, 64 columns and rows of an index, all heads.
fn index_work(index: &TileIndex) -> [f64; 3] {
    let (mut tiles, mut columns) = (0, 0);
    for head in 0..index.heads() {
        for tile in 0..index.tiles() {
            let row = index.row(0, head, tile);
            let of = |range: &[u32]| (range[1] - range[0]).div_ceil(QUERY_TILE as u32);
            tiles += row.ranges.chunks_exact(2).map(of).sum::<u32>();
            columns += row.columns.len();
        }
    }
    let rows = index.heads() * index.tiles();
    [
        f64::from(tiles),
        columns as f64 / QUERY_TILE as f64,
        rows as f64,
    ]
}

/// Random inputs: times depend on the index alone.
struct Layer {
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
}

impl Layer {
    fn new(device: &Device, settings: &CalibrateSettings, length: usize) -> Self {
        device.seed(SEED);
        let normal = |heads| {
            let dims = [1, heads, length, settings.head_dim];
            let standard = Distribution::Normal(0.0, 1.0);
            Tensor::<4>::random(dims, standard, (device, element(settings.dtype)))
        };
        Self {
            query: normal(settings.heads),
            key: normal(settings.kv_heads),
            value: normal(settings.kv_heads),
        }
    }

    fn time(&self, device: &Device, plan: &AttentionPlan, runs: usize) -> Result<f64, SpeedError> {
        let call = || {
            Ok(attend(
                self.query.clone(),
                &self.key,
                &self.value,
                &plan.layer(0)?,
            )?)
        };
        Ok(median(&Batches::new(device, call)?.all_ms(runs)?))
    }
}

#[cfg(test)]
mod tests {
    use sparse_accelerate_engine::device::{DeviceChoice, select};

    use super::*;

    #[test]
    fn work_is_what_the_index_holds() {
        let spans = [Span::whole(192)];
        // Tile 0 sees 64 keys, tile 1 its own and the columns 3 and 70 before it, tile 2 both.
        let index = interval_slash(&spans, &[vec![3, 70]], &[vec![0]]).unwrap();
        assert_eq!(index_work(&index), [3.0, 3.0 / 64.0, 3.0]);
        let device = select(DeviceChoice::FLEX).unwrap().device;
        let heads = Heads::new(4, 1, 64);
        let plan = AttentionPlan::with_index(index, heads, &device).unwrap();
        assert_eq!(work(&plan, 4, 192), [0.0, 12.0, 12.0 / 64.0, 12.0]);
        let dense = AttentionPlan::new(
            &AttentionSettings::dense(),
            &spans,
            heads,
            Visible::Causal,
            &device,
        )
        .unwrap();
        assert_eq!(work(&dense, 4, 192), [24.0, 0.0, 0.0, 0.0]);
    }
}
