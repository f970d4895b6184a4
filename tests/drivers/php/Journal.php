<?php

declare(strict_types=1);

/**
 * What a driver program did, as the program itself knows it.
 *
 * Owns the markers in the statements' texts and the lines of the journal. Values come as the text that the server's
 * output function prints; null is NULL.
 */
final class Journal
{
    /** @var resource */
    private $file;
    /** @var array<string, int> */
    private array $numbers = [];

    public function __construct(private string $name)
    {
        $this->file = fopen(getenv('PGW_JOURNAL'), 'a');
    }

    public static function rounds(): int
    {
        return (int) (getenv('PGW_ROUNDS') ?: '1');
    }

    /** Gives each empty comment in a text its marker. Equal texts keep equal numbers, in every round. */
    public function mark(string $text): string
    {
        $pieces = explode('/**/', $text);
        self::expect('places for markers', count($pieces) > 1, true);
        $marked = array_shift($pieces);
        foreach ($pieces as $index => $piece) {
            $number = $this->numbers["$index $text"] ??= count($this->numbers) + 1;
            $marked .= "/* d={$this->name} j=$number */$piece";
        }
        return $marked;
    }

    /** One execution of the first marked statement of a text; `params` null is no claim. */
    public function line(string $marked, int $pid, ?int $rows = null, ?int $affected = null, ?string $sqlstate = null,
        ?int $copied = null, ?array $params = null): void
    {
        preg_match('~/\* d=\S+ j=(\d+) \*/~', substr($marked, 0, 10000), $marker);
        $line = ['d' => $this->name, 'j' => (int) $marker[1], 'pid' => $pid, 'rows' => $rows, 'affected' => $affected,
            'sqlstate' => $sqlstate, 'copy_bytes' => $copied];
        if ($params !== null) {
            $line['params'] = $params;
        }
        fwrite($this->file, json_encode($line, JSON_THROW_ON_ERROR) . "\n");
    }

    public static function expect(string $what, mixed $got, mixed $wanted): void
    {
        if ($got !== $wanted) {
            fwrite(STDERR, "$what: expected " . var_export($wanted, true) . ', got ' . var_export($got, true) . "\n");
            exit(1);
        }
    }
}
