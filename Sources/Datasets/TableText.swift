import Base

/// Tables as lines of text.
package enum TableText {
    /// RFC 4180 with a header: times in RFC 3339, nothing for what is missing, the shortest text that names a number.
    package static func csv(_ table: DatasetTable) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(table.count * table.columns.count * 8)
        func field(_ text: String) {
            guard text.utf8.contains(where: { [0x22, 0x2C, 0x0A, 0x0D].contains($0) }) else {
                out += text.utf8
                return
            }
            out.append(0x22)
            for byte in text.utf8 {
                if byte == 0x22 { out.append(0x22) }
                out.append(byte)
            }
            out.append(0x22)
        }
        for (index, column) in table.columns.enumerated() {
            if index > 0 { out.append(0x2C) }
            field(column.name)
        }
        out += [0x0D, 0x0A]
        for row in 0..<table.count {
            for (index, column) in table.columns.enumerated() {
                if index > 0 { out.append(0x2C) }
                guard !column.isMissing(row) else { continue }
                switch column.values {
                case .doubles(let list):
                    if list[row].isFinite { JSONNumber.append(list[row], to: &out) } else { out += "\(list[row])".utf8 }
                case .integers(let list): out += String(list[row]).utf8
                case .texts(let list): list[row].isEmpty ? out.append(contentsOf: [0x22, 0x22]) : field(list[row])
                case .flags(let list): out += (list[row] ? "true" : "false").utf8
                case .moments(let list): out += Instant(milliseconds: list[row]).description.utf8
                }
            }
            out += [0x0D, 0x0A]
        }
        return out
    }

    /// One JSON object a line, with null for what is missing and for infinities, which JSON does not have.
    package static func jsonLines(_ table: DatasetTable) -> [UInt8] {
        var out: [UInt8] = []
        let names = table.columns.map { JSONWriter.escaped(key: $0.name) }
        var writer = JSONWriter(capacity: 1024)
        for row in 0..<table.count {
            writer.reset()
            writer.beginObject()
            for (index, column) in table.columns.enumerated() {
                writer.key(escaped: names[index])
                guard !column.isMissing(row) else {
                    writer.null()
                    continue
                }
                switch column.values {
                case .doubles(let list): writer.value(list[row])
                case .integers(let list): writer.value(list[row])
                case .texts(let list): writer.value(list[row])
                case .flags(let list): writer.value(list[row])
                case .moments(let list): writer.value(Instant(milliseconds: list[row]))
                }
            }
            writer.endObject()
            out += writer.bytes
            out.append(0x0A)
        }
        return out
    }
}
