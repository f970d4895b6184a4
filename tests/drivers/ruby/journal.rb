# What a driver program did, as the program itself knows it.
#
# Owns the markers in the statements' texts and the lines of the journal. Values come as the text that the server's
# output function prints; nil is NULL.
require "json"

class Journal
  MARKER = %r{/\* d=\S+ j=(\d+) \*/}

  def self.rounds = Integer(ENV.fetch("PGW_ROUNDS", "1"))

  def initialize(name)
    @name = name
    @file = File.open(ENV.fetch("PGW_JOURNAL"), "a")
    @file.sync = true
    @numbers = {}
  end

  # Gives each empty comment in a text its marker. Equal texts keep equal numbers, in every round.
  def mark(text)
    count = 0
    marked = text.gsub("/**/") do
      key = [text, count += 1]
      @numbers[key] ||= @numbers.size + 1
      "/* d=#{@name} j=#{@numbers[key]} */"
    end
    raise "no place for a marker: #{text}" if count.zero?
    marked
  end

  # One execution of the first marked statement of a text; `params` only where something is claimed of them.
  def line(marked, pid, rows: nil, affected: nil, sqlstate: nil, copied: nil, params: nil)
    number = Integer(marked[MARKER, 1])
    line = { d: @name, j: number, pid:, rows:, affected:, sqlstate:, copy_bytes: copied }
    line[:params] = params if params
    @file.puts(JSON.generate(line))
  end

  def self.expect(what, got, wanted)
    abort("#{what}: expected #{wanted.inspect[0, 200]}, got #{got.inspect[0, 200]}") unless got == wanted
  end
end
