//! The control plane: a pure machine and the driver that performs its effects.
