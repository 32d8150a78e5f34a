import CRE2

extension CELFunction {
    /// startsWith, endsWith, contains and matches: by code points, not by what looks equal.
    func found(_ left: CELValue, _ right: CELValue) throws(BaseError) -> Bool {
        guard case .string(let text) = left, case .string(let piece) = right else { throw wrong([left, right]) }
        switch self {
        case .startsWith: return text.utf8.starts(with: piece.utf8)
        case .endsWith: return text.utf8.reversed().starts(with: piece.utf8.reversed())
        case .contains: return CELFunction.stands(piece, in: text)
        default: return try CELPattern(piece).isFound(in: text)
        }
    }

    private static func stands(_ piece: String, in text: String) -> Bool {
        var (piece, text) = (piece, text)
        return piece.withUTF8 { piece in
            text.withUTF8 { text in
                piece.withMemoryRebound(to: CChar.self) { piece in
                    text.withMemoryRebound(to: CChar.self) {
                        headrace_text_contains($0.baseAddress, $0.count, piece.baseAddress, piece.count) != 0
                    }
                }
            }
        }
    }

    /// Where a run of elements first stands.
    private static func place<T: Equatable>(of piece: [T], in text: [T], from: Int, last: Bool = false) -> Int? {
        guard piece.count + from <= text.count else { return nil }
        let places = from...(text.count - piece.count)
        func stands(_ at: Int) -> Bool { text[at..<at + piece.count].elementsEqual(piece) }
        return last ? places.last(where: stands) : places.first(where: stands)
    }

    /// cel-go's strings extension; places count code points.
    func text(_ values: [CELValue]) throws(BaseError) -> CELValue {
        if self == .join { return try joined(values) }
        guard case .string(let text) = values[0] else { throw wrong(values) }
        let scalars = Array(text.unicodeScalars)
        func string(_ index: Int) throws(BaseError) -> [Unicode.Scalar] {
            guard case .string(let value) = values[index] else { throw wrong(values) }
            return Array(value.unicodeScalars)
        }
        func number(_ index: Int) throws(BaseError) -> Int {
            guard case .int(let value) = values[index] else { throw wrong(values) }
            return Int(value)
        }
        func place(_ index: Int, _ least: Int = 0) throws(BaseError) -> Int {
            let value = try number(index)
            guard value >= least, value <= scalars.count else {
                throw BaseError("bad-index", "'\(rawValue)' looks at place \(value) of a text of \(scalars.count)")
            }
            return value
        }
        func made(_ scalars: some Sequence<Unicode.Scalar>) -> CELValue {
            .string(String(String.UnicodeScalarView(scalars)))
        }
        switch self {
        case .lowerAscii:
            return made(scalars.map { $0.isASCII ? Unicode.Scalar($0.properties.lowercaseMapping) ?? $0 : $0 })
        case .upperAscii:
            return made(scalars.map { $0.isASCII ? Unicode.Scalar($0.properties.uppercaseMapping) ?? $0 : $0 })
        case .trim:
            let rest = scalars.drop { $0.properties.isWhitespace }
            return made(
                rest.prefix(
                    (rest.lastIndex { !$0.properties.isWhitespace } ?? rest.startIndex - 1) + 1 - rest.startIndex))
        case .charAt:
            let at = try place(1)
            return made(scalars[at..<min(at + 1, scalars.count)])
        case .substring:
            let from = try place(1)
            let to = values.count == 3 ? try place(2, from) : scalars.count
            return made(scalars[from..<to])
        case .indexOf:
            let from = values.count == 3 ? try place(2) : 0
            return .int(Int64(CELFunction.place(of: try string(1), in: scalars, from: from) ?? -1))
        case .lastIndexOf:
            let to = values.count == 3 ? try place(2) : scalars.count
            let piece = try string(1)
            let upTo = Array(scalars.prefix(min(scalars.count, to + piece.count)))
            return .int(Int64(CELFunction.place(of: piece, in: upTo, from: 0, last: true) ?? -1))
        default: return try cut(scalars, by: try string(1), values)
        }
    }

    private func joined(_ values: [CELValue]) throws(BaseError) -> CELValue {
        guard case .list(let items) = values[0] else { throw wrong(values) }
        var separator = ""
        if values.count == 2 {
            guard case .string(let text) = values[1] else { throw wrong(values) }
            separator = text
        }
        var texts: [String] = []
        for item in items {
            guard case .string(let text) = item else { throw wrong([item]) }
            texts.append(text)
        }
        try CELFunction.require(texts.reduce(0) { $0 + $1.utf8.count + separator.utf8.count })
        return .string(texts.joined(separator: separator))
    }

    /// split(separator[, limit]) and replace(old, new[, limit]).
    private func cut(
        _ scalars: [Unicode.Scalar], by piece: [Unicode.Scalar], _ values: [CELValue]
    ) throws(BaseError) -> CELValue {
        var limit = Int.max
        let limitIndex = self == .split ? 2 : 3
        if values.count > limitIndex {
            guard case .int(let value) = values[limitIndex] else { throw wrong(values) }
            limit = value < 0 ? .max : Int(value)
        }
        if self == .split, limit == 0 { return .list([]) }
        var parts: [String] = []
        var from = 0
        while parts.count < (self == .split ? limit - 1 : limit) {
            // An empty separator stands before every code point but the first of a split.
            var at = from + (piece.isEmpty && (self == .split || !parts.isEmpty) ? 1 : 0)
            if piece.isEmpty {
                guard self == .split ? at < scalars.count : at <= scalars.count else { break }
            } else {
                guard let next = CELFunction.place(of: piece, in: scalars, from: from) else { break }
                at = next
            }
            parts.append(String(String.UnicodeScalarView(scalars[from..<at])))
            from = at + piece.count
        }
        parts.append(String(String.UnicodeScalarView(scalars[from...])))
        if self == .split { return .list(parts.map { .string($0) }) }
        guard case .string(let new) = values[2] else { throw wrong(values) }
        try CELFunction.require(parts.reduce(0) { $0 + $1.utf8.count } + (parts.count - 1) * new.utf8.count)
        return .string(parts.joined(separator: new))
    }
}
