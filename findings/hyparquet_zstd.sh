#!/usr/bin/env bash
# hyparquet, a reader of Parquet in JavaScript, stops at pages that are compressed by anything but Snappy, though the codecs
# are of the format: they are another package, and are an argument of every call. Seen with hyparquet 1.33.0 and
# hyparquet-compressors 1.1.2; the file is by pyarrow 26.0.1. Needs Node.js 20 or later.
# Expected: the rows. Seen: parquet unsupported compression codec: ZSTD. With the argument compressors, the rows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyarrow==26.0.1"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import pyarrow as pa
import pyarrow.parquet as pq

pq.write_table(pa.table({"loss": [[0.5, 0.25]]}), sys.argv[1] + "/runs.parquet", compression="zstd")
PYTHON
npm install --silent --prefix "$folder" "hyparquet@1.33.0" "hyparquet-compressors@1.1.2" >"$folder/npm.log"
cat >"$folder/check.mjs" <<'JAVASCRIPT'
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'

const file = await asyncBufferFromFile(process.argv[2])
console.log('hyparquet 1.33.0 with compressors:', await parquetReadObjects({ file, compressors }))
try {
  console.log('hyparquet 1.33.0 alone:', await parquetReadObjects({ file }))
  console.log('it reads the file now')
  process.exitCode = 1
} catch (error) {
  console.log('hyparquet 1.33.0 alone:', error.message)
  process.exitCode = error.message.endsWith('ZSTD') ? 0 : 1
}
JAVASCRIPT
node "$folder/check.mjs" "$folder/runs.parquet"
