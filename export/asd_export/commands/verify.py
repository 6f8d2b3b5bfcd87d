"""`asd-export verify`: is a bundle whole, and does it still say what its checkpoint says?"""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """\
Without --checkpoint the checksums and signatures are checked, every variant is run, and int8 is compared with fp32.
With it, all variants are compared with torch as they were at export. Exit code 1 when they differ too much.

  asd-export verify bundles/beats --checkpoint BEATs_iter3_plus_AS2M.pt --sound recordings/
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="check a bundle, and compare it with its checkpoint",
        description="Repeat the parity report of a bundle.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="DIR", help="bundle folder")
    parser.add_argument("--checkpoint", metavar="CHECKPOINT", help="what it was exported from")
    parser.add_argument("--sound", nargs="+", default=[], metavar="PATH", help="recordings to compare on")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from asd_export.parity import check
    from asd_export.table import print_report
    from asd_export.verify import verify_bundle

    result = verify_bundle(args.bundle, args.checkpoint, args.sound)
    print_report(args.bundle, result)
    check(result)
    return 0
