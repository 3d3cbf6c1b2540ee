//! What an agent can do in its sandbox: shell, apply_patch, view_image.
