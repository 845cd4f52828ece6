"""Train recurrent networks on sequences: what they are, a readable engine and a fast one."""
