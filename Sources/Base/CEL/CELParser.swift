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
        if parser.index < parser.tokens.count, parser.tokens[parser.index].text == "{" {
            throw parser.failure("protobuf messages are not built here: no message stands")
        }
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

    private mutating func nested<T>(_ read: (inout CELParser) throws(BaseError) -> T) throws(BaseError) -> T {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Limits.expressionDepth else {
            throw failure("more than \(Limits.expressionDepth) levels are nested")
        }
        return try read(&self)
    }

    private mutating func ternary() throws(BaseError) -> CELSyntax {
        try nested { (parser) throws(BaseError) in
            let condition = try parser.logic(isOr: true)
            guard parser.accept("?") else { return condition }
            let yes = try parser.logic(isOr: true)
            try parser.expect(":")
            return .call("?:", nil, [condition, yes, try parser.ternary()])
        }
    }

    private mutating func logic(isOr: Bool) throws(BaseError) -> CELSyntax {
        var sides: [CELSyntax] = []
        repeat {
            sides.append(isOr ? try logic(isOr: false) : try binary(0))
        } while accept(isOr ? "||" : "&&")
        return sides.count == 1 ? sides[0] : .logic(isOr: isOr, sides)
    }

    private static let levels: [[String]] = [["==", "!=", "<=", ">=", "<", ">", "in"], ["+", "-"], ["*", "/", "%"]]

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
        if accept("!") { return .call("!", nil, [try nested { (parser) throws(BaseError) in try parser.unary() }]) }
        if accept("-") {
            if index < tokens.count, tokens[index].kind == .int, let size = tokens[index].unsigned, size == 1 << 63 {
                index += 1
                return try member(.literal(.int(.min)))
            }
            return .call("-", nil, [try nested { (parser) throws(BaseError) in try parser.unary() }])
        }
        return try member(try primary())
    }

    private mutating func member(_ start: CELSyntax) throws(BaseError) -> CELSyntax {
        var tree = start
        while true {
            if accept(".") {
                let optional = accept("?")
                guard index < tokens.count, tokens[index].kind == .name || tokens[index].kind == .quoted else {
                    throw failure("a name is missing")
                }
                let token = tokens[index]
                index += 1
                if token.kind == .name, !optional, accept("(") {
                    tree = try method(tree, token.text, try arguments())
                } else {
                    guard token.kind == .quoted || !["in", "true", "false", "null"].contains(token.text) else {
                        throw failure("'\(token.text)' is no name of a field")
                    }
                    tree = .select(tree, token.text, optional: optional)
                }
            } else if accept("[") {
                let optional = accept("?")
                let place = try ternary()
                try expect("]")
                tree = .index(tree, place, optional: optional)
            } else {
                return tree
            }
        }
    }

    private func method(_ target: CELSyntax, _ name: String, _ arguments: [CELSyntax]) throws(BaseError) -> CELSyntax {
        func variable(_ syntax: CELSyntax) throws(BaseError) -> String {
            guard case .identifier(let name) = syntax, !name.hasPrefix(".") else {
                throw failure("'\(name)' takes names of variables first")
            }
            return name
        }
        if ["optMap", "optFlatMap"].contains(name), arguments.count == 2 {
            return .bind(target, try variable(arguments[0]), arguments[1], isFlat: name == "optFlatMap")
        }
        guard CELLoop.names.contains(name) else { return .call(name, target, arguments) }
        guard let (loop, count) = CELLoop.find(name, arguments.count) else {
            throw failure("'\(name)' takes one or two variables and an expression")
        }
        var names: [String] = []
        for argument in arguments.prefix(count) { names.append(try variable(argument)) }
        guard Set(names).count == names.count else { throw failure("'\(name)' has two variables of one name") }
        return .loop(loop, target, names, Array(arguments.dropFirst(count)))
    }

    private mutating func arguments() throws(BaseError) -> [CELSyntax] {
        var result: [CELSyntax] = []
        if accept(")") { return result }
        repeat { result.append(try ternary()) } while accept(",")
        try expect(")")
        return result
    }

    private mutating func items() throws(BaseError) -> [(item: CELSyntax, optional: Bool)] {
        var result: [(item: CELSyntax, optional: Bool)] = []
        repeat {
            if accept("]") { return result }
            let optional = accept("?")
            result.append((try ternary(), optional))
        } while accept(",")
        try expect("]")
        return result
    }

    private mutating func entries() throws(BaseError) -> [(key: CELSyntax, value: CELSyntax, optional: Bool)] {
        var result: [(key: CELSyntax, value: CELSyntax, optional: Bool)] = []
        repeat {
            if accept("}") { return result }
            let optional = accept("?")
            let key = try ternary()
            try expect(":")
            result.append((key, try ternary(), optional))
        } while accept(",")
        try expect("}")
        return result
    }

    /// cel-spec langdef.md, "Syntax": words that name no variable.
    private static let reserved: Set<String> = [
        "as", "break", "const", "continue", "else", "for", "function", "if", "import", "in", "let", "loop", "package",
        "namespace", "return", "var", "void", "while",
    ]

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
        case .quoted: throw failure("a name between backticks must be a field's")
        case .name: return try named(token.text)
        case .symbol:
            switch token.text {
            case "(":
                let inner = try ternary()
                try expect(")")
                return inner
            case "[": return .list(try items())
            case "{": return .map(try entries())
            case "." where index < tokens.count && tokens[index].kind == .name:
                index += 1
                return try named("." + tokens[index - 1].text)
            default:
                index -= 1
                throw failure("no value stands")
            }
        }
    }

    private mutating func named(_ name: String) throws(BaseError) -> CELSyntax {
        switch name {
        case "true": return .literal(.bool(true))
        case "false": return .literal(.bool(false))
        case "null": return .literal(.null)
        default: break
        }
        guard !CELParser.reserved.contains(name) else { throw failure("'\(name)' is a reserved word") }
        guard accept("(") else { return .identifier(name) }
        let list = try arguments()
        if name == "has" {
            guard list.count == 1, case .select(let target, let field, let optional) = list[0] else {
                throw failure("has() takes one field selection")
            }
            return .test(target, field, optional: optional)
        }
        return .call(name.hasPrefix(".") ? String(name.dropFirst()) : name, nil, list)
    }
}
