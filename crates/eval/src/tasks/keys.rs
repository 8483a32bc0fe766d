//! Keys of needles: an adjective and a noun, as in `quiet-harbor`.

use crate::draw::Draw;

const ADJECTIVES: [&str; 64] = [
    "amber", "ancient", "arctic", "bitter", "bold", "brave", "brief", "bright", "broad", "busy",
    "calm", "careful", "cheap", "clever", "cold", "crisp", "curious", "dark", "deep", "distant",
    "dusty", "eager", "early", "empty", "exact", "faint", "famous", "fierce", "flat", "fragile",
    "frozen", "gentle", "giant", "golden", "grand", "happy", "heavy", "hidden", "hollow", "honest",
    "humble", "idle", "jolly", "keen", "lively", "loud", "lucky", "mellow", "modern", "narrow",
    "noble", "odd", "patient", "plain", "proud", "quiet", "rapid", "rare", "royal", "rusty",
    "silent", "steep", "sudden", "tiny",
];

const NOUNS: [&str; 64] = [
    "acorn", "anchor", "arrow", "badge", "barrel", "basket", "beacon", "blanket", "bottle",
    "bridge", "bucket", "button", "cabin", "candle", "canyon", "carpet", "castle", "cellar",
    "chimney", "circle", "clock", "cloud", "compass", "copper", "cottage", "curtain", "dolphin",
    "engine", "falcon", "feather", "ferry", "fountain", "garden", "glacier", "hammer", "harbor",
    "island", "jacket", "kettle", "ladder", "lantern", "library", "magnet", "market", "meadow",
    "mirror", "needle", "orchard", "paddle", "pepper", "pillow", "planet", "pocket", "quarry",
    "ribbon", "saddle", "shelter", "spider", "tunnel", "valley", "violin", "wagon", "walnut",
    "window",
];

/// One of 4,096.
pub(super) fn key(draw: &mut Draw) -> String {
    let (adjective, noun) = (draw.below(ADJECTIVES.len()), draw.below(NOUNS.len()));
    format!("{}-{}", ADJECTIVES[adjective], NOUNS[noun])
}
