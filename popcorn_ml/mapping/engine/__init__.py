"""What runs the networks over a piece of canvas.

Two implementations of one interface (`api`) give one result to 1e-5: `on_openvino`, the fastest on
a CPU, and `on_torch`, which also runs on GPUs and wherever OpenVINO does not, and is the reference.
What is read, how seasons and members are put together and what is written is the same with either.
"""
