//! Every block type against values that another implementation made of the same bytes.

use super::*;

/// Random blocks and what the public Python package `gguf` makes of them; `tests/golden/language/README.md` says how.
const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/language/blocks.safetensors");

#[test]
fn every_type_gives_the_recorded_values() {
    let golden = safetensors::SafeTensors::deserialize(GOLDEN).unwrap();
    for kind in BlockType::all() {
        let bytes = golden.tensor(&format!("{}.bytes", kind.name())).unwrap();
        let recorded = golden.tensor(&format!("{}.values", kind.name())).unwrap();
        let recorded: Vec<f32> =
            recorded.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut values = vec![0.0; recorded.len()];
        kind.dequantise(bytes.data(), &mut values);
        let blocks = recorded.len() / kind.block_elements();
        assert!(blocks >= 3 && values.iter().any(|v| *v != 0.0), "{kind:?}: {blocks} blocks");
        for (i, (ours, theirs)) in values.iter().zip(&recorded).enumerate() {
            assert_eq!(ours.to_bits(), theirs.to_bits(), "{kind:?}, element {i}: {ours} for {theirs}");
        }
    }
}

#[test]
fn sizes_follow_from_the_layouts() {
    assert_eq!(BlockType::all().count(), 13);
    for kind in BlockType::all() {
        assert_eq!(BlockType::of_number(kind.number()), Ok(kind));
        assert_eq!(kind.bytes_of(3 * kind.block_elements() as u64), Some(3 * kind.block_bytes() as u64));
    }
    assert_eq!(BlockType::Q4K.bits_per_element(), 4.5);
    assert_eq!(BlockType::Q6K.bits_per_element(), 6.5625);
    assert_eq!(BlockType::Q4_1.bytes_of(33), None);
    assert_eq!(BlockType::F32.bytes_of(u64::MAX), None);
    assert_eq!(BlockType::of_number(16), Err(Some("IQ2_XXS")));
    assert_eq!(BlockType::of_number(99), Err(None));
}

#[test]
#[should_panic(expected = "bytes of whole blocks")]
fn bytes_of_another_number_are_refused() {
    BlockType::Q8_0.dequantise(&[0; 33], &mut [0.0; 32]);
}
