"""The flags of `headrace deploy`, in the order of its help. `flags` reads what their text means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.flags import MOST

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="An .onnx, .pt2 or .plan file, a directory of one model's plans or in Triton's repository layout, "
        "which is uploaded; or an s3://, gs:// or https:// URL, which the mesh fetches if it is configured to. "
        "With --optimize and without --name: a model that is deployed already, by its name.",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Name to serve it under.")]
Tenant = Annotated[str, typer.Option(metavar="NAME", help="Who owns it and pays for it.")]
MinInstances = Annotated[
    int | None, typer.Option(min=0, max=10_000, metavar="N", help="Instances always kept. Default: 0.")
]
MaxInstances = Annotated[
    int | None, typer.Option(min=1, max=10_000, metavar="N", help="Default: what the quota allows.")
]
IdleTimeout = Annotated[
    str | None, typer.Option(metavar="TIME", help="Idle this long, it goes to zero. Default: learnt.")
]
Slo = Annotated[str | None, typer.Option(metavar="TIME", help="Latency to scale for, such as 100ms; drops nothing.")]
MaxBatch = Annotated[int | None, typer.Option(min=1, max=65_536, metavar="N", help="Rows per batch at most.")]
Cpu = Annotated[str | None, typer.Option(metavar="CPUS", help="CPUs of one instance: 2, 0.5 or 500m. Default: 1.")]
MaxCpu = Annotated[
    str | None,
    typer.Option(metavar="CPUS", help="With it, an instance has --cpu to --max-cpu, as measurements say."),
]
Memory = Annotated[str | None, typer.Option(metavar="BYTES", help="Memory of one instance. Default: 1Gi.")]
Gpu = Annotated[str | None, typer.Option(metavar="GPUS", help="GPUs of one instance: 1, 0.5 or 500m.")]
GpuMemory = Annotated[str | None, typer.Option(metavar="BYTES", help="GPU memory of one instance.")]
Concurrency = Annotated[
    int | None, typer.Option(min=0, max=MOST, metavar="N", help="Limit: requests not yet answered.")
]
Rps = Annotated[float | None, typer.Option(min=0, metavar="X", help="Limit: requests per second.")]
QueueLength = Annotated[
    int | None,
    typer.Option(min=0, max=MOST, metavar="N", help="Limit: requests that wait, each for a moment at least."),
]
QueueBytes = Annotated[str | None, typer.Option(metavar="BYTES", help="Limit: bytes of requests that wait.")]
InstanceConcurrency = Annotated[
    int | None, typer.Option(min=1, max=65_536, metavar="N", help="Requests at one instance at once; others wait.")
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Limit of all its instances and requests together, by the names of `tenant set`, such as cpu=2, "
        "memory=4Gi or rps=500; repeatable.",
    ),
]
Budget = Annotated[
    list[str] | None, typer.Option(metavar="AMOUNT/TIME", help="Limit: money, such as 1.50/h or 200/month.")
]
Engine = Annotated[str, typer.Option(metavar="ENGINE", help="Engine; by the file's kind if not given.")]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Option of the engine, such as intra_op_threads=2; repeatable."),
]
ShareWith = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Another tenant that may call it; * is all; repeatable. Replaces what was shared before.",
    ),
]
ResponseCache = Annotated[bool | None, typer.Option(help="Answer repeated requests from a cache.")]
CacheTtl = Annotated[str | None, typer.Option(metavar="TIME", help="The cache keeps an answer this long, such as 60s.")]
CacheShared = Annotated[bool, typer.Option("--cache-shared", help="One cache for all tenants; otherwise one for each.")]
Pad = Annotated[
    list[str] | None,
    typer.Option(
        metavar="INPUT=VALUE",
        help="Fill this input's free dimensions up with the value, so that unlike shapes share a batch; "
        "repeatable. For models whose answers it does not change.",
    ),
]
State = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OUTPUT=INPUT",
        help="Stateful: what this output gives, the next request of its sequence gets by the input; repeatable.",
    ),
]
SequenceIdle = Annotated[
    str | None, typer.Option(metavar="TIME", help="A sequence without a request for so long is over. Default: 60s.")
]
Spot = Annotated[bool, typer.Option("--spot", help="Its instances may be on spot nodes.")]
Spread = Annotated[
    int,
    typer.Option(
        min=1, max=64, metavar="N", help="Spread its instances over N failure domains, where there are several."
    ),
]
GpuArchitecture = Annotated[
    list[str] | None,
    typer.Option(metavar="SM", help="A GPU that its engine was built for, such as sm_86; repeatable."),
]
Policy = Annotated[
    str,
    typer.Option(metavar="NAME", help="Who decides how many: headrace, conservative, kpa, ... Default: headrace."),
]
Traffic = Annotated[
    str, typer.Option(metavar="KIND", help="spiky, steady or variable; chooses a policy where none is named.")
]
CostSensitivity = Annotated[
    str, typer.Option(metavar="HOW", help="high, normal or low; adjusts the policy, or chooses one.")
]
Schedule = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CRON=N",
        help='At least N instances from then on, such as "0 8 * * 1-5 Europe/Paris=4"; repeatable.',
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC=VALUE",
        help="Instances that keep concurrency, queue-wait, latency, rate, cpu or gpu-memory there; repeatable.",
    ),
]
SloCredit = Annotated[
    str | None, typer.Option(metavar="MONEY", help="Worth of a request inside --slo; instances may not cost more.")
]
Optimize = Annotated[
    bool, typer.Option("--optimize", help="Let a job find a cheaper variant, and serve that once it is found.")
]
Samples = Annotated[
    Path | None,
    typer.Option(metavar="FILE.npz", help="For --optimize: arrays by the names of the inputs, a row per sample."),
]
Labels = Annotated[str, typer.Option(metavar="KEY", help="For --optimize: array of the samples with right answers.")]
Floor = Annotated[
    str | None, typer.Option(metavar="SHARE", help="For --optimize: least share of right answers. Default: 0.99.")
]
Latency = Annotated[str | None, typer.Option(metavar="TIME", help="For --optimize: most that a batch may take.")]
Precisions = Annotated[
    str, typer.Option(metavar="P[,P...]", help="For --optimize: of fp32, fp16, int8, int4. Default: all.")
]
Prune = Annotated[
    str, typer.Option(metavar="SHARE[,SHARE...]", help="For --optimize: of each layer's weights, to become zero.")
]
KeepOriginal = Annotated[
    bool, typer.Option("--keep-original", help="For --optimize: list what was found, and serve the original on.")
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Return once a real load has succeeded, and the job of --optimize has ended.")
]
