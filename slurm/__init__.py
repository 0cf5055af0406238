"""The sweep on a SLURM cluster, through submitit.

preset -> packs -> submission -> jobs on the nodes -> the run store, which alone says what is done.
"""
