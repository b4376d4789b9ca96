"""What runs the networks over a piece of canvas.

Three implementations of one interface (`api`) give one result to 1e-5: `on_compiled`, the fastest
on a CPU; `on_openvino`, for CPUs without a C compiler; and `on_torch`, which also runs on GPUs and
wherever the others do not, and is the reference. What is read, how seasons and members are put
together and what is written is the same with each.
"""
