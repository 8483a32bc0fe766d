//! The counter-based hash under every input: no state, so any element can be made alone.

/// 32-bit words of one stream of a seed, by counter. Distinct counters have distinct words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    add: u32,
    flip: u32,
}

impl Stream {
    pub(crate) fn new(seed: u32, stream: u32) -> Self {
        let odd = stream.wrapping_mul(2).wrapping_add(1);
        let add = mix(seed.wrapping_add(0x9e37_79b9_u32.wrapping_mul(odd)));
        let flip = mix(add ^ 0x85eb_ca6b).wrapping_add(stream);
        Self { add, flip }
    }

    #[inline]
    pub(crate) fn bits(self, counter: u32) -> u32 {
        mix(mix(counter.wrapping_add(self.add)) ^ self.flip)
    }
}

#[inline]
pub(crate) fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
