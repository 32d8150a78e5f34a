import Base

/// A table's rows as bytes, one row behind the other, so that a changed row changes the bytes around it alone
/// (docs/formats/dataset.md).
///
/// A row is its length (u32, little-endian, of what follows), then each column: a byte 0 for a missing value, or 1 and the
/// value: f64 and i64 in 8 bytes little-endian, a flag in one byte, a text as u32 length and UTF-8.
package enum DatasetRows {
    package static func encode(_ table: DatasetTable) -> [UInt8] {
        var encoder = Encoder(table)
        return encoder.encode(0..<table.count)
    }

    /// Writes rows piece by piece.
    package struct Encoder {
        private let cells: [Cells]
        private var writer = ByteWriter()

        package init(_ table: DatasetTable) { cells = table.columns.map { Cells($0) } }

        package mutating func encode(_ rows: Range<Int>) -> [UInt8] {
            writer.bytes.removeAll(keepingCapacity: true)
            for number in rows {
                let start = writer.count
                writer.append(little: 0 as UInt32)
                for index in cells.indices { cells[index].write(number, &writer) }
                writer.patch(little: UInt32(writer.count - start - 4), at: start)
            }
            return writer.bytes
        }
    }

    /// A column's values, each kind by itself: nothing is taken out of an enum cell by cell.
    private struct Cells {
        let kind: DatasetColumn.Kind
        var doubles: [Double] = []
        var integers: [Int64] = []
        var flags: [Bool] = []
        var texts: [String] = []
        let missing: [Bool]

        init(_ column: DatasetColumn) {
            kind = column.kind
            missing = column.missing
            switch column.values {
            case .doubles(let list): doubles = list
            case .integers(let list), .moments(let list): integers = list
            case .flags(let list): flags = list
            case .texts(let list): texts = list
            }
        }

        func write(_ row: Int, _ writer: inout ByteWriter) {
            guard missing.isEmpty || !missing[row] else { return writer.append(0 as UInt8) }
            writer.append(1 as UInt8)
            switch kind {
            case .double: writer.append(doubles[row])
            case .integer, .moment: writer.append(little: integers[row])
            case .flag: writer.append(flags[row] ? 1 : 0 as UInt8)
            case .text: writer.append(sized: texts[row])
            }
        }
    }

    /// Reads rows back, piece by piece.
    package struct Decoder {
        private let kinds: [DatasetColumn.Kind]
        private let names: [String]
        private var rest: [UInt8] = []
        private var doubles: [[Double]]
        private var integers: [[Int64]]
        private var texts: [[String]]
        private var flags: [[Bool]]
        private var missing: [[Bool]]

        package init(schema: [(name: String, kind: DatasetColumn.Kind)]) {
            kinds = schema.map(\.kind)
            names = schema.map(\.name)
            doubles = Array(repeating: [], count: kinds.count)
            integers = Array(repeating: [], count: kinds.count)
            texts = Array(repeating: [], count: kinds.count)
            flags = Array(repeating: [], count: kinds.count)
            missing = Array(repeating: [], count: kinds.count)
        }

        package mutating func take(_ bytes: [UInt8]) throws(DatasetsError) {
            rest += bytes
            let held = rest
            let used: Int
            do {
                used = try held.withUnsafeBytes { (raw) throws(BaseError) in
                    var reader = ByteReader(raw)
                    var used = 0
                    while raw.count - used >= 4 {
                        let count = Int(try reader.little(UInt32.self))
                        guard raw.count - used - 4 >= count else { break }
                        try row(&reader)
                        used += 4 + count
                    }
                    return used
                }
            } catch {
                throw DatasetsError("bad-rows", "a dataset's rows cannot be read", cause: error, fault: .world)
            }
            rest.removeFirst(used)
        }

        private mutating func row(_ reader: inout ByteReader) throws(BaseError) {
            for (index, kind) in kinds.enumerated() {
                let isThere = try reader.byte() == 1
                missing[index].append(!isThere)
                switch kind {
                case .double: doubles[index].append(isThere ? try reader.double() : 0)
                case .integer, .moment: integers[index].append(isThere ? try reader.little() : 0)
                case .text: texts[index].append(isThere ? try reader.sizedText() : "")
                case .flag: flags[index].append(isThere ? try reader.byte() == 1 : false)
                }
            }
        }

        package func table() throws(DatasetsError) -> DatasetTable {
            guard rest.isEmpty else {
                throw DatasetsError("bad-rows", "a dataset's last row is cut off", fault: .world)
            }
            return DatasetTable(
                columns: kinds.indices.map { index in
                    let values: DatasetColumn.Values =
                        switch kinds[index] {
                        case .double: .doubles(doubles[index])
                        case .integer: .integers(integers[index])
                        case .moment: .moments(integers[index])
                        case .text: .texts(texts[index])
                        case .flag: .flags(flags[index])
                        }
                    return DatasetColumn(name: names[index], values: values, missing: missing[index])
                })
        }
    }
}
