"""What is asked: frozen records, validated once."""
