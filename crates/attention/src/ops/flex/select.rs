//! Selections on the CPU.

use burn::backend::Flex;
use burn_flex::FlexTensor;

use crate::{ops::SelectionOps, select::SelectOptions};

impl SelectionOps for Flex {
    fn pool(_: FlexTensor, _: FlexTensor, _: FlexTensor, _: FlexTensor) -> FlexTensor {
        unimplemented!()
    }
    fn attend_selected(
        _: FlexTensor,
        _: FlexTensor,
        _: FlexTensor,
        _: FlexTensor,
        _: FlexTensor,
        _: FlexTensor,
        _: FlexTensor,
        _: SelectOptions,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        unimplemented!()
    }
}
