/// The syntax tree of an expression.
indirect enum CELSyntax {
    case literal(CELValue)
    case identifier(String)
    case select(CELSyntax, String)
    case test(CELSyntax, String)
    case index(CELSyntax, CELSyntax)
    case call(String, CELSyntax?, [CELSyntax])
    case list([CELSyntax])
    case map([(CELSyntax, CELSyntax)])
    /// all, exists, exists_one, map, filter over a range, with the name of the loop variable.
    case loop(String, CELSyntax, String, [CELSyntax])
}

/// Reads CEL's grammar (cel-spec, langdef.md, "Syntax").
struct CELParser {
    private let tokens: [CELToken]
    private var index = 0
    private var depth = 0
    private let source: String

    init(_ source: String) throws(BaseError) {
        self.source = source
        tokens = try CELToken.scan(source)
    }

    static func parse(_ source: String) throws(BaseError) -> CELSyntax {
        var parser = try CELParser(source)
        let tree = try parser.ternary()
        guard parser.index == parser.tokens.count else { throw parser.failure("something follows the expression") }
        return tree
    }

    private func failure(_ what: String) -> BaseError {
        let near = index < tokens.count ? "at '\(tokens[index].text)'" : "at the end"
        return BaseError("bad-expression", "\(what) \(near) of the expression: \(source)")
    }

    private mutating func accept(_ symbol: String) -> Bool {
        guard index < tokens.count, tokens[index].kind == .symbol, tokens[index].text == symbol else { return false }
        index += 1
        return true
    }

    private mutating func expect(_ symbol: String) throws(BaseError) {
        guard accept(symbol) else { throw failure("'\(symbol)' is missing") }
    }

    private mutating func ternary() throws(BaseError) -> CELSyntax {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Limits.expressionDepth else {
            throw failure("more than \(Limits.expressionDepth) levels are nested")
        }
        let condition = try binary(0)
        guard accept("?") else { return condition }
        let yes = try binary(0)
        try expect(":")
        return .call("?:", nil, [condition, yes, try ternary()])
    }

    private static let levels: [[String]] = [
        ["||"], ["&&"], ["==", "!=", "<=", ">=", "<", ">", "in"], ["+", "-"], ["*", "/", "%"],
    ]

    private mutating func binary(_ level: Int) throws(BaseError) -> CELSyntax {
        guard level < CELParser.levels.count else { return try unary() }
        var left = try binary(level + 1)
        while index < tokens.count, CELParser.levels[level].contains(tokens[index].text),
            tokens[index].kind == .symbol || (tokens[index].kind == .name && tokens[index].text == "in")
        {
            let name = tokens[index].text
            index += 1
            left = .call(name, nil, [left, try binary(level + 1)])
        }
        return left
    }

    private mutating func unary() throws(BaseError) -> CELSyntax {
        if accept("!") { return .call("!", nil, [try unary()]) }
        if accept("-") {
            if index < tokens.count, tokens[index].kind == .int, tokens[index].text == "9223372036854775808" {
                index += 1
                return try member(.literal(.int(.min)))
            }
            return .call("-", nil, [try unary()])
        }
        return try member(try primary())
    }

    private mutating func member(_ start: CELSyntax) throws(BaseError) -> CELSyntax {
        var tree = start
        while true {
            if accept(".") {
                guard index < tokens.count, tokens[index].kind == .name else { throw failure("a name is missing") }
                let name = tokens[index].text
                index += 1
                if accept("(") {
                    tree = try method(tree, name, try arguments(")"))
                } else {
                    tree = .select(tree, name)
                }
            } else if accept("[") {
                let place = try ternary()
                try expect("]")
                tree = .index(tree, place)
            } else {
                return tree
            }
        }
    }

    private func method(_ target: CELSyntax, _ name: String, _ arguments: [CELSyntax]) throws(BaseError) -> CELSyntax {
        guard ["all", "exists", "exists_one", "map", "filter"].contains(name), arguments.count >= 2 else {
            return .call(name, target, arguments)
        }
        guard case .identifier(let variable) = arguments[0],
            arguments.count == 2 || (name == "map" && arguments.count == 3)
        else { throw failure("'\(name)' takes a variable and an expression") }
        return .loop(name, target, variable, Array(arguments.dropFirst()))
    }

    private mutating func arguments(_ close: String) throws(BaseError) -> [CELSyntax] {
        var result: [CELSyntax] = []
        if accept(close) { return result }
        repeat {
            if close == "]", accept(close) { return result }
            result.append(try ternary())
        } while accept(",")
        try expect(close)
        return result
    }

    private mutating func primary() throws(BaseError) -> CELSyntax {
        guard index < tokens.count else { throw failure("a value is missing") }
        let token = tokens[index]
        index += 1
        switch token.kind {
        case .int:
            guard let value = token.integer else { throw failure("an integer is out of range") }
            return .literal(.int(value))
        case .uint:
            guard let value = token.unsigned else { throw failure("an unsigned integer is out of range") }
            return .literal(.uint(value))
        case .double: return .literal(.double(Double(token.text) ?? .nan))
        case .string: return .literal(.string(token.text))
        case .bytes:
            return .literal(.bytes([UInt8](token.text.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) })))
        case .name:
            switch token.text {
            case "true": return .literal(.bool(true))
            case "false": return .literal(.bool(false))
            case "null": return .literal(.null)
            default: break
            }
            guard accept("(") else { return .identifier(token.text) }
            let list = try arguments(")")
            if token.text == "has" {
                guard list.count == 1, case .select(let target, let field) = list[0] else {
                    throw failure("has() takes one field selection")
                }
                return .test(target, field)
            }
            return .call(token.text, nil, list)
        case .symbol:
            switch token.text {
            case "(":
                let inner = try ternary()
                try expect(")")
                return inner
            case "[": return .list(try arguments("]"))
            case "{": return .map(try entries())
            default:
                index -= 1
                throw failure("no value stands")
            }
        }
    }

    private mutating func entries() throws(BaseError) -> [(CELSyntax, CELSyntax)] {
        var result: [(CELSyntax, CELSyntax)] = []
        if accept("}") { return result }
        repeat {
            if accept("}") { return result }
            let key = try ternary()
            try expect(":")
            result.append((key, try ternary()))
        } while accept(",")
        try expect("}")
        return result
    }
}
