#!/usr/bin/env bash
# What surprised: a workbook opened for reading only loses rows, and its first sheet may be hidden.
#
# A sheet may carry a record of its own size, written before its rows. Programs that append rows
# leave the old record, which spreadsheets ignore. openpyxl, opened with read_only=True, stops where
# the record ends and says nothing; opened without, it reads on. In both, the first of
# `worksheets` is the first in the file, be it hidden from whoever opens the workbook.
# Exit 0: as described; exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq "openpyxl==3.1.5"
cat > "$folder/look.py" <<'PYTHON'
import re
import sys
import zipfile

import openpyxl

source, path = sys.argv[1] + "/whole.xlsx", sys.argv[1] + "/short.xlsx"
book = openpyxl.Workbook()
book.active.title = "draft"
book.active.sheet_state = "hidden"
sheet = book.create_sheet("counts")
for row in range(40):
    sheet.append([f"{row:04d}", "people"])
book.save(source)
with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
    for name in old.namelist():
        data = old.read(name)
        if name == "xl/worksheets/sheet2.xml":
            data, found = re.subn(rb'<dimension ref="[^"]*"', b'<dimension ref="A1:B39"', data)
            assert found == 1
        new.writestr(name, data)

whole = openpyxl.load_workbook(path)
quick = openpyxl.load_workbook(path, read_only=True)
rows = {
    "without read_only": len(list(whole["counts"].iter_rows())),
    "with read_only": len(list(quick["counts"].iter_rows())),
}
quick["counts"].reset_dimensions()
rows["after reset_dimensions()"] = len(list(quick["counts"].iter_rows()))
first = quick.worksheets[0]
print(f"openpyxl {openpyxl.__version__}: rows read of 40: {rows}")
print(f"first of worksheets: {first.title!r}, {first.sheet_state}")
if list(rows.values()) != [40, 39, 40] or first.sheet_state != "hidden":
    sys.exit("changed")
print("as described: one row is lost where the record is short; a hidden sheet comes first")
PYTHON
"$folder/venv/bin/python" "$folder/look.py" "$folder"
