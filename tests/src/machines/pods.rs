//! Agents as pods of real nodes.
