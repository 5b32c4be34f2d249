//! The Hierarchical Reasoning Model: TRM's frame with two nets, and halting by comparing two q values.
//!
//! In: an HRM config (field names of the released code). Out: a graph whose step is one supervision step. Must not: repeat what TRM has.
//!
//! Source: Wang et al., "Hierarchical Reasoning Model", arXiv 2506.21734; released code, `models/hrm/hrm_act_v1.py`.

use super::trm::{TrmConfig, declare_net, recursive_graph};
use super::{ModelError, ModelFamily, Params, config_error};
use crate::graph::{Graph, Halting};

/// The family.
pub const FAMILY: ModelFamily =
    ModelFamily { name: "hrm", about: "Hierarchical Reasoning Model, arXiv 2506.21734", build };

fn build(config: &serde_json::Value) -> Result<Graph, ModelError> {
    let mut config = TrmConfig::read(config)?;
    if config.h_layers == 0 {
        return Err(config_error("`H_layers` is missing or 0; an HRM has a net of its own for z_H"));
    }
    if config.puzzle_emb_ndim > 0 && config.puzzle_emb_len == 0 {
        config.puzzle_emb_len = config.embedding().prefix();
    }
    let mut params = Params::default();
    let h_net = declare_net(&mut params, "H_level", config.h_layers, config.size())?;
    let l_net = declare_net(&mut params, "L_level", config.l_layers, config.size())?;
    recursive_graph(&config, params, &l_net, &h_net, Halting::OverContinue)
}
