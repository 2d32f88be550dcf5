"""What `senergy doctor` looks at: `facts` looks, `checks` judges what was seen and says how to put it right."""
