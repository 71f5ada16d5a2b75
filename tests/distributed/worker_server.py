"""What the server imports from which worker processes are forked: it must start no threads."""

import torch

torch.set_num_threads(1)

import worker_processes  # noqa: E402

worker_processes.llama()  # imports the family too
