//! Every bound of the engine in one place, with its arithmetic.
