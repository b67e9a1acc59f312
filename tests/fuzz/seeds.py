"""Writes the seeds of `make fuzz`: FOLDER/<fuzzer>/<number>, and FOLDER/<fuzzer>.dict with words of the language."""

import re
import struct
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "csrc"

# (header, bytes of data); tests/io/safetensors_test.cc says which are accepted.
HEADERS = [
    ("{}", 0),
    ('{"__metadata__":null}', 0),
    ('{"__metadata__":{"format":"pt","é":"\\u00e9\\ud834\\udd1e"},"w":["F32",[2,2],[0,16]]}', 16),
    ('{"w":{"dtype":"F64","shape":[],"data_offsets":[0,8],"more":[1,{"a":1e-5,"b":true}]}}   ', 8),
    ('{"w":{"dtype":"U8","shape":[18446744073709551615,0],"data_offsets":[0,0]}}', 0),
    ('{"w":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}', 1),
    ('{"w":{"dtype":{"BOOL":null},"shape":[3],"data_offsets":[0,3]},"v":["F16",[1,1],[3,5]]}', 5),
    ('{"a":["F4",[2,3],[0,3]],"b":["F6_E2M3",[4],[3,6]],"c":["C64",[1],[6,14]],"d":["I64",[0],[14,14]]}', 14),
    ('{"a":["U8",[4],[0,4]],"b":["U8",[4],[2,6]]}', 6),
    ('{"w":["F32",[4611686018427387904],[0,0]],"w":["F32",[-1],[0,1.5]]}', 0),
    ('{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4],"x":[[[[[[[[{"y":[null,false]}]]]]]]]]}}', 4),
]
VALUES = r"""
null
true
-0
18446744073709551616
1.7976931348623157e308
0e999999999999
1e-99999999999
123456789012345678901234567890.125e-40
"\"\\\/\b\f\n\r\t\u00e9\ud834\udd1e é𝄞"
{}
[ ]
 [ 1 , "a" , { "b" : null, "": [[]] } ]
{"a":{"a":{"a":1}},"b":[0.5,-1e+2,"\ud800"]}
""".splitlines()[1:]
VALUES.append("[" * 127 + "]" * 127)

WORDS = {
    "json": ["null", "true", "false", r"\u00e9", r"\ud834\udd1e", "1e308", "-0.5", "18446744073709551615", "[]", '":'],
    "schema": [f"{kind}{suffix}" for kind in ("Tensor", "int", "Scalar", "str") for suffix in ("", "?", "[]", "[]?")]
    + ["int[]*", "dtype?", "device?", "Generator?", "-> ", "(Tensor a, Tensor b)", "*, ", "=[1, 2]", "requires_grad"],
}
DTYPES = re.findall(r"X\((\w+), \d+\)", (SOURCES / "io" / "safetensors.h").read_text(encoding="utf-8"))
FIELDS = ["__metadata__", "dtype", "shape", "data_offsets", *DTYPES]
WORDS["safetensors"] = [*WORDS["json"], *(f'"{word}"' for word in FIELDS), '"w":["U8",[1],[0,1]]']


def schemas() -> list[str]:
    """Every schema written in the ops' sources; most are put together of several literals."""
    found = []
    for path in sorted((SOURCES / "ops").glob("*.cc")):
        for literals in re.findall(r'\.schema\s*=\s*((?:"(?:[^"\\]|\\.)*"\s*)+)', path.read_text(encoding="utf-8")):
            found.append("".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals)))
    return found


def main(folder: Path) -> None:
    """Writes everything; seeds that are there already are the same."""
    seeds = {
        "safetensors": [struct.pack("<Q", len(h.encode())) + h.encode() + bytes(range(n)) for h, n in HEADERS],
        "json": [text.encode() for text in VALUES + [header for header, _ in HEADERS]],
        "schema": [text.encode() for text in schemas()],
    }
    for fuzzer, inputs in seeds.items():
        assert len(inputs) > 10, fuzzer
        (folder / fuzzer).mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(inputs):
            (folder / fuzzer / str(i)).write_bytes(data)
        quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in WORDS[fuzzer])
        (folder / f"{fuzzer}.dict").write_text("".join(f'"{word}"\n' for word in quoted), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
