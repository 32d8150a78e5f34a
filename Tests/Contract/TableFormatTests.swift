import Base
import Datasets
import Foundation
import Testing

/// Files that others read: pyarrow, duckdb and polars find the same values in them.
@Suite struct TableFormatTests {
    @Test(.enabled(if: python != nil, "./test makes the Python environment"), arguments: [0, 1, 8, 140_000])
    func readersFindTheSame(rows: Int) throws {
        let scratch = try ScratchDirectory()
        let table = DatasetTableTests.table(rows, UInt64(rows))
        for format in TableFormat.names {
            let bytes = try TableFormat.bytes(table, format, metadata: [("headrace.dataset", "d@1")])
            #expect(try bytes == TableFormat.bytes(table, format, metadata: [("headrace.dataset", "d@1")]))
            try Data(bytes).write(to: URL(filePath: scratch.path + "/table." + format))
        }
        let result = try run(python!, [projectDirectory + "/Tests/Contract/Python/read_tables.py", scratch.path])
        #expect(result.status == 0 && result.output.contains("same \(rows)"), "\(result.output) \(result.errors)")
        #expect(errorCode { _ = try TableFormat.bytes(table, "xlsx", metadata: []) } == "bad-format")
    }
}
