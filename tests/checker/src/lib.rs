//! Judges a run: messages lost, duplicated, reordered, gaps.
