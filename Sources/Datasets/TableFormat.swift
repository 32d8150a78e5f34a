import Base

/// The formats that rows are written in for others.
package enum TableFormat {
    package static let names = ["parquet", "arrow", "csv", "jsonl"]

    package static func bytes(
        _ table: DatasetTable, _ format: String, metadata: [(key: String, value: String)]
    ) throws(DatasetsError) -> [UInt8] {
        switch format {
        case "parquet": return ParquetFile.bytes(table, metadata: metadata)
        case "arrow": return ArrowFile.bytes(table, metadata: metadata)
        case "csv": return TableText.csv(table)
        case "jsonl": return TableText.jsonLines(table)
        default:
            throw DatasetsError(
                "bad-format", "there is no format '\(format)'; there are \(names.joined(separator: ", "))")
        }
    }
}
